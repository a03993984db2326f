"""Guidance mixes denoisers; null values, dropout of conditions and limits of x0_hat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from oracles import SCHEDULES, TWO_MOONS, exact_denoiser, gaussian, log_density

from diffjax import diffusion, guidance
from diffjax.errors import InputError
from diffjax.types import Prediction

pytestmark = pytest.mark.usefixtures("x64")

SCHEDULE = SCHEDULES["vp_linear"]
X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 2)), jnp.float32)


# --- guidance ---------------------------------------------------------------------------


def labelled(calls=None):
    """Mixture components as classes; the null label 3 is the whole mixture."""

    def denoiser(x, t, cond):
        if calls is not None:
            calls.append(x.shape[0])
        parts = [gaussian(m, s) for m, s in zip(TWO_MOONS.means, TWO_MOONS.stds, strict=True)]
        all_x0 = [exact_denoiser(p, SCHEDULE)(x, t, None).x0 for p in [*parts, TWO_MOONS]]
        x0 = jnp.take_along_axis(jnp.stack(all_x0), cond["label"][None, :, None], axis=0)[0]
        return Prediction(x0, jnp.broadcast_to(cond["label"][:, None] / 4, x0.shape))

    return denoiser


LABELS, NULL = {"label": jnp.asarray([0, 1, 2, 0, 1, 2])}, {"label": 3}


def guide(scale, t=0.5, calls=None):
    return guidance.classifier_free(labelled(calls), scale, NULL)(X.astype(float), t, LABELS)


@pytest.mark.exhaustive
def test_scale_1_is_conditional_and_0_is_not():
    x = X.astype(float)
    conditional = labelled()(x, 0.5, LABELS)
    unconditional = exact_denoiser(TWO_MOONS, SCHEDULE)(x, 0.5, None).x0
    np.testing.assert_allclose(guide(1.0).x0, conditional.x0, rtol=1e-12)
    np.testing.assert_allclose(guide(0.0).x0, unconditional, rtol=1e-12)
    np.testing.assert_array_equal(guide(3.0).variance_fraction, conditional.variance_fraction)


@pytest.mark.exhaustive
def test_one_call_of_twice_the_batch():
    calls = []
    guide(2.0, calls=calls)
    assert calls == [12]


@pytest.mark.exhaustive
def test_scale_per_sample():
    scales = [0.0, 1.0, 1.5, 2.0, 4.0, 8.0]
    together = guide(jnp.asarray(scales)).x0
    for i, scale in enumerate(scales):
        np.testing.assert_allclose(together[i], guide(scale).x0[i], rtol=1e-12)
    times = jnp.linspace(0.2, 0.9, 6)
    np.testing.assert_allclose(guide(2.0, times).x0[4], guide(2.0, times[4]).x0[4], rtol=1e-12)


def test_guiding_x0_is_guiding_eps():
    """Ho & Salimans 2022, Eq. 6 with w = scale - 1: eps = (1 + w) cond - w uncond."""
    w, t, x = 1.7, jnp.asarray(0.5), X.astype(float)

    def eps(cond):
        return diffusion.eps_from_x0(SCHEDULE, x, t, labelled()(x, t, cond).x0)

    expected = (1 + w) * eps(LABELS) - w * eps({"label": jnp.full(6, 3)})
    ours = diffusion.eps_from_x0(SCHEDULE, x, t, guide(1 + w, t).x0)
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


# --- which conditions are guided ---------------------------------------------------------


def seen_by(null, cond, x=None):
    """The batch that the network is called with under guidance."""
    calls = []

    def denoiser(x, t, cond):
        calls.append((x, t, cond))
        return Prediction(x)

    guidance.classifier_free(denoiser, 2.0, null)(jnp.zeros((3, 2)) if x is None else x, 0.5, cond)
    (call,) = calls
    return call


def test_conditions_with_a_null_are_replaced_and_the_others_repeated():
    """Labels and token embeddings have nulls; a mask and a low-resolution image do not."""
    null_tokens = np.arange(8.0).reshape(4, 2)
    cond = {
        "label": jnp.asarray([4, 5, 6]),
        "tokens": jnp.ones((3, 4, 2)) * jnp.arange(3.0)[:, None, None],
        "mask": jnp.arange(3.0)[:, None],
        "low": {"image": jnp.arange(6.0).reshape(3, 2), "level": jnp.arange(3)},
    }
    null = {"label": 9, "tokens": null_tokens, "mask": None, "unused": 1}
    x, t, seen = seen_by(null, cond, jnp.arange(6.0).reshape(3, 2))
    assert x.shape == (6, 2)
    assert t.shape == (6,)
    for i in range(3):
        rows = [j for j in range(6) if seen["mask"][j, 0] == i]
        assert sorted(np.asarray(seen["label"])[rows]) == [i + 4, 9]
        for j in rows:
            expected = null_tokens if seen["label"][j] == 9 else np.full((4, 2), float(i))
            np.testing.assert_array_equal(seen["tokens"][j], expected)
            np.testing.assert_array_equal(seen["low"]["image"][j], [2 * i, 2 * i + 1])
            np.testing.assert_array_equal(x[j], [2 * i, 2 * i + 1])
            assert seen["low"]["level"][j] == i


def test_a_condition_may_be_a_pytree_or_several_entries():
    tree = {"a": jnp.ones((3, 2)), "b": jnp.ones(3, int)}
    _, _, seen = seen_by({"text": {"a": 0.0, "b": 7}}, {"text": tree})
    assert sorted(np.asarray(seen["text"]["b"])) == [1, 1, 1, 7, 7, 7]
    np.testing.assert_array_equal(seen["text"]["a"][:, 0] == 0, seen["text"]["b"] == 7)
    _, _, entries = seen_by({"text": {"a": 0.0, "b": 7}}, tree)
    np.testing.assert_array_equal(entries["a"], seen["text"]["a"])
    np.testing.assert_array_equal(entries["b"], seen["text"]["b"])


@pytest.mark.parametrize(
    ("null", "cond", "says"),
    [
        ({"label": 9}, None, "a null value, such as label; got the conditions: none"),
        ({"label": 9}, {}, "got the conditions: none"),
        ({"label": 9}, {"mask": jnp.ones((3, 1))}, "got the conditions: mask"),
        ({"label": None}, {"label": jnp.arange(3)}, "such as none; got the conditions: label"),
        ({"tokens": np.ones((5, 2))}, {"tokens": jnp.ones((3, 4, 2))}, "of 'tokens' must broadc"),
        ({"text": {"a": 0.0}}, {"text": {"b": jnp.ones(3)}}, "of 'text' must broadcast"),
    ],
)
def test_nothing_to_guide_is_a_sentence(null, cond, says):
    with pytest.raises(InputError, match=says):
        seen_by(null, cond)


def test_guidance_is_exported_with_a_symbolic_batch():
    """No split needs a concrete batch size; scales are traced."""

    def draw(x, label, scale):
        cond = {"label": label}
        return guidance.classifier_free(labelled(), scale, NULL)(x, jnp.asarray(0.5), cond).x0

    (b,) = export.symbolic_shape("b")
    shapes = [((b, 2), float), ((b,), int), ((), float)]
    args = [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for shape, dtype in shapes]
    exported = export.export(jax.jit(draw))(*args)
    ours = exported.call(X.astype(float), LABELS["label"].astype(int), jnp.asarray(2.0))
    np.testing.assert_allclose(ours, guide(2.0).x0, rtol=1e-12)


# --- dropout ----------------------------------------------------------------------------

MANY = {
    "x": jnp.zeros((20_000, 1)),
    "label": jnp.arange(20_000) % 10,
    "tokens": jnp.ones((20_000, 2, 3)),
    "token_mask": jnp.ones((20_000, 2), bool),
}


def share(n, p):
    """Bounds of a share of `n` draws of rate p, at 4.5 standard deviations."""
    return pytest.approx(p, abs=4.5 * np.sqrt(p * (1 - p) / n) + 1e-12)


def seen_in_training(nulls, rates, batch=MANY, seed=0):
    """The batch that a loss is given, and uniform draws of the loss's own key."""

    def loss(params, key, batch, offset=0):
        return offset, (batch, jax.random.uniform(key, batch["x"].shape[:1]))

    dropped = guidance.condition_dropout(loss, nulls, rates)
    assert dropped(None, jax.random.key(seed), batch, offset=3)[0] == 3
    return dropped(None, jax.random.key(seed), batch)[1]


def test_each_condition_is_dropped_by_its_own_draw():
    """Shares p, q and p q; what is kept is intact, and the loss's key knows nothing of it."""
    nulls = {"label": 10, "text": {"tokens": np.zeros((2, 3)), "token_mask": True}}
    batch, uniform = seen_in_training(nulls, {"label": 0.15, "text": 0.4})
    label = np.asarray(batch["label"]) == 10
    tokens = np.asarray(batch["tokens"] == 0)
    text = tokens[:, 0, 0]
    assert (tokens == text[:, None, None]).all()
    np.testing.assert_array_equal(batch["label"][~label], MANY["label"][~label])
    assert label.mean() == share(20_000, 0.15)
    assert text.mean() == share(20_000, 0.4)
    assert (label & text).mean() == share(20_000, 0.06)
    for drop in (label, text):
        assert np.mean(np.asarray(uniform)[drop] < 0.15) == share(drop.sum(), 0.15)


def test_entries_of_one_condition_are_dropped_together():
    nulls = {"text": {"tokens": 0.0, "token_mask": False}, "label": None}
    batch, _ = seen_in_training(nulls, 0.3)
    np.testing.assert_array_equal(batch["tokens"][:, 0, 0] == 1, batch["token_mask"][:, 0])
    np.testing.assert_array_equal(batch["label"], MANY["label"])


def test_rates_0_and_1():
    for rate in (0.0, 1.0):
        batch, _ = seen_in_training({"label": 10}, rate)
        assert np.mean(np.asarray(batch["label"]) == 10) == rate


def test_at_the_optimum_the_null_is_the_exact_null_denoiser():
    """x0 is -1 or 1, its label the sign: E[x0 | x_t] is the label, or tanh without one.

    A network that is the exact denoiser plus one number for each label and half of the noise
    levels: at its optimum all numbers are 0, so the gradient there is 0 within its error.
    """
    n, rate = 40_000, 0.3
    x0 = jnp.where(jnp.arange(n) % 2 == 0, -1.0, 1.0)

    def loss(params, key, batch):
        level_key, eps_key = jax.random.split(key)
        level = jax.random.bernoulli(level_key, 0.5, (n,)).astype(int)
        sigma = jnp.asarray([0.5, 2.0])[level]
        x_t = batch["x"][:, 0] + sigma * jax.random.normal(eps_key, (n,))
        exact = jnp.stack([-jnp.ones(n), jnp.ones(n), jnp.tanh(x_t / sigma**2)])
        guess = jnp.take_along_axis(exact, batch["label"][None], 0)[0]
        error = guess + params[batch["label"], level] - batch["x"][:, 0]
        return jnp.mean(error**2), batch["label"]

    batch = {"x": x0[:, None], "label": (x0 > 0).astype(int)}
    dropped = guidance.condition_dropout(loss, {"label": 2}, rate)
    gradient = jax.jit(jax.grad(dropped, has_aux=True))
    slope, labels = gradient(jnp.zeros((3, 2)), jax.random.key(0), batch)
    assert np.mean(np.asarray(labels) == 2) == share(n, rate)
    np.testing.assert_allclose(slope, 0, atol=4.5 * 2 / np.sqrt(n))
    wrong, _ = gradient(jnp.zeros((3, 2)).at[2].set(0.1), jax.random.key(0), batch)
    np.testing.assert_allclose((wrong - slope)[2], rate / 2 * 0.2, rtol=0.05)


@pytest.mark.parametrize(
    ("nulls", "rates", "says"),
    [
        ({"label": 10}, 1.5, "a rate in \\[0, 1\\] for 'label'; got 1.5"),
        ({"label": 10}, -0.1, "got -0.1"),
        ({"label": 10}, float("nan"), "got nan"),
        ({"label": 10}, {"tokens": 0.1}, "a rate for 'tokens', which has no null value"),
        ({"label": None}, {"label": 0.1}, "a rate for 'label', which has no null value"),
        ({"caption": 0}, 0.1, "drops caption, which the batch lacks; it has label"),
        ({"text": {"tokens": 0.0, "vector": 0.0}}, 0.1, "drops vector, which the batch lacks"),
        ({"tokens": np.ones((4, 4))}, 0.1, "of 'tokens' must broadcast"),
    ],
)
def test_dropout_that_cannot_be_is_a_sentence(nulls, rates, says):
    with pytest.raises(InputError, match=says):
        seen_in_training(nulls, rates)


# --- clipping ---------------------------------------------------------------------------


def predicts_itself(x, t, cond):
    return Prediction(x)


def test_static_clip():
    x = jnp.asarray([[-3.0, -0.5], [0.25, 1.5]])
    out = guidance.static_clip(predicts_itself)(x, 0.5, None)
    np.testing.assert_array_equal(out.x0, [[-1.0, -0.5], [0.25, 1.0]])
    np.testing.assert_array_equal(guidance.static_clip(predicts_itself, 5.0)(x, 0.5, None).x0, x)


def test_dynamic_threshold():
    """Imagen, section 2.3, on 0 .. 100 percent of 4, whose 75th percentile is 3; and within 1."""
    loud, quiet = jnp.linspace(-4, 4, 401), jnp.linspace(-0.5, 0.5, 401)
    x = jnp.stack([jnp.abs(loud), quiet])
    out = guidance.dynamic_threshold(predicts_itself, 0.75)(x, 0.5, None).x0
    assert np.mean(out[0] == 1) == pytest.approx(0.25, abs=0.01)
    small = x[0] < 3
    np.testing.assert_allclose(out[0][small] * 3, x[0][small], rtol=1e-9)
    np.testing.assert_array_equal(out[1], quiet)


def test_a_threshold_has_a_maximum():
    """The 75th percentile is 3; limited to 2 the sample is clipped to 2 and halved."""
    x = jnp.linspace(0.0, 4.0, 401)[None]
    out = guidance.dynamic_threshold(predicts_itself, 0.75, 2.0)(x, 0.5, None).x0
    np.testing.assert_allclose(out, jnp.minimum(x, 2) / 2, rtol=1e-9)
    clipped = guidance.dynamic_threshold(predicts_itself, 0.75, 1.0)(x, 0.5, None).x0
    np.testing.assert_array_equal(clipped, jnp.minimum(x, 1))


@pytest.mark.parametrize(
    ("rule", "value", "says"),
    [
        (guidance.dynamic_threshold, 99.5, "99.5% is 0.995"),
        (guidance.dynamic_threshold, 0.0, "in .0, 1.; got 0"),
        (guidance.static_clip, 0.0, "a positive bound"),
        (lambda d, m: guidance.dynamic_threshold(d, 0.995, m), 0.5, "a maximum of at least 1"),
    ],
)
def test_limits_out_of_range_are_a_sentence(rule, value, says):
    with pytest.raises(InputError, match=says):
        rule(predicts_itself, value)


# --- a classifier ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "edm"])
def test_classifier_guidance_with_the_true_classifier_is_the_conditional_denoiser(name):
    """The label is the component of a mixture: Bayes' rule is a softmax of known densities."""
    schedule, mixture = SCHEDULES[name], TWO_MOONS
    parts = [gaussian(m, s) for m, s in zip(mixture.means, mixture.stds, strict=True)]

    def logits(params, x, c_noise, cond, key):
        """The joint density of x_t and each label, which is Bayes' rule but for its scale."""

        def one(x, t):
            scales = schedule.alpha(t), schedule.sigma(t)
            joint = [log_density(part, x[None], *scales)[0] for part in parts]
            return jnp.stack(joint) + jnp.log(jnp.asarray(mixture.weights, float)) + params

        return jax.vmap(one)(x, (c_noise + 1) / 1000)

    log_prob = guidance.label_log_prob(logits, 0.3, lambda t: 1000 * t - 1)
    unconditional = exact_denoiser(mixture, schedule)

    @jax.jit
    def guided(x, t, cond, scale):
        return guidance.classifier(unconditional, log_prob, scale, schedule)(x, t, cond).x0

    x, t = X.astype(float), jnp.linspace(0.05, 0.9, 6)
    label = jnp.array([0, 1, 2, 2, 1, 0])
    each = jnp.stack([exact_denoiser(part, schedule)(x, t, None).x0 for part in parts])
    expected = each[label, jnp.arange(6)]
    np.testing.assert_allclose(guided(x, t, {"label": label}, 1.0), expected, rtol=1e-9, atol=1e-9)
    none = unconditional(x, t, None).x0
    np.testing.assert_allclose(guided(x, t, {"label": label}, 0.0), none, rtol=1e-12)
    twice = guided(x, t, {"label": label}, jnp.full(6, 2.0))
    np.testing.assert_allclose(twice, 2 * expected - none, rtol=1e-9, atol=1e-9)
