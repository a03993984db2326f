"""Networks that represent the same denoiser are the same, and guidance mixes denoisers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, TWO_MOONS, exact_denoiser, gaussian, log_density

from diffjax import diffusion, guidance, schedules, weighting
from diffjax.losses import denoising_loss
from diffjax.parameterization import at_steps, make_denoiser, predict_eps, predict_v, predict_x0
from diffjax.types import Prediction

pytestmark = pytest.mark.usefixtures("x64")

SCHEDULE = SCHEDULES["vp_linear"]
X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 2)), jnp.float32)


# What each network says of (x_t, t) when it knows E[x0 | x_t].
def says_x0(schedule, x_t, t, x0):
    return x0


# parameterization, what it predicts, the weight under which its squared error is that of x0
KINDS = {
    "x0": (predict_x0, says_x0, weighting.unit),
    "eps": (predict_eps, diffusion.eps_from_x0, weighting.snr),
    "v": (predict_v, diffusion.v_from_x0, weighting.snr_plus_one),
}
KIND = pytest.mark.parametrize(("predicts", "says", "weight"), KINDS.values(), ids=KINDS)


def network_of(schedule, says):
    """The network that knows the exact denoiser."""
    denoiser = exact_denoiser(TWO_MOONS, schedule)

    def network(params, x, c_noise, cond, key):
        t = c_noise / 1000
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        x_t = x * jnp.sqrt(alpha**2 + sigma**2)  # the input has unit variance for unit data
        return says(schedule, x_t, t, denoiser(x_t, t, cond).x0)

    return network


@KIND
@pytest.mark.parametrize("name", ["linear", "vp_cosine", "edm"])
def test_same_denoiser(name, predicts, says, weight):
    schedule = SCHEDULES[name]
    denoiser = jax.jit(make_denoiser(network_of(schedule, says), None, schedule, predicts))
    x, t = X.astype(float), jnp.linspace(0.05, 0.9, 6)
    expected = jax.jit(exact_denoiser(TWO_MOONS, schedule))(x, t, None).x0
    np.testing.assert_allclose(denoiser(x, t, None).x0, expected, rtol=1e-7, atol=1e-9)
    scalar = denoiser(x, jnp.asarray(0.5), None).x0
    np.testing.assert_allclose(scalar[2], denoiser(x, jnp.full(6, 0.5), None).x0[2], rtol=1e-12)


@pytest.mark.exhaustive
@KIND
def test_weighted_loss_is_that_of_the_prediction(predicts, says, weight):
    """A network wrong by 0.1 everywhere, of data that is a point, has the loss 0.01 exactly."""
    point = gaussian([0.3, -0.2], 0.0)

    def network(params, x, c_noise, cond, key):
        t = c_noise / 1000
        x0 = exact_denoiser(point, SCHEDULE)(x, t, cond).x0
        return says(SCHEDULE, x, t, x0) + params

    loss = denoising_loss(network, SCHEDULE, predicts, weight, weighting.stratified(SCHEDULE))
    batch = {"x": jnp.broadcast_to(jnp.asarray(point.means), (16, 2))}
    value, aux = loss(jnp.asarray(0.1), jax.random.key(0), batch)
    np.testing.assert_allclose(value, 0.01, rtol=1e-6)
    assert set(aux) == {"context"}


@pytest.mark.exhaustive
def test_losses_agree_under_their_weights():
    """Any weight of x0 is the same loss for all three networks of one (wrong) denoiser."""
    values = []
    for predicts, says, _ in KINDS.values():
        shifted = partial(lambda says, s, x, t, x0: says(s, x, t, x0 * 0.9), says)
        loss = denoising_loss(
            network_of(SCHEDULE, shifted),
            SCHEDULE,
            predicts,
            weighting.min_snr(),
            weighting.uniform(SCHEDULE),
        )
        values.append(loss(None, jax.random.key(0), {"x": X.astype(float)})[0])
    np.testing.assert_allclose(values, values[0], rtol=1e-7)
    assert values[0] > 0.01


def test_learned_variance_is_the_second_half():
    x = jnp.ones((2, 3, 3, 1))

    def network(params, x, c_noise, cond, key):
        return jnp.concatenate([0 * x + 0.25, 0 * x - 0.5], axis=-1)

    out = make_denoiser(network, None, SCHEDULE, predict_x0)(x, 0.5, None)
    np.testing.assert_array_equal(out.x0, np.full(x.shape, 0.25))
    np.testing.assert_array_equal(out.variance_fraction, np.full(x.shape, 0.25))  # (-0.5 + 1) / 2


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


def test_one_call_of_twice_the_batch():
    calls = []
    guide(2.0, calls=calls)
    assert calls == [12]


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


def test_label_dropout():
    """The share of null labels; the rest, the data and the key of the loss are intact."""
    batch = {"x": jnp.zeros((20_000, 1)), "label": jnp.arange(20_000) % 10}

    def loss(params, key, batch, offset=0):
        return jnp.mean(batch["label"] == 10) + offset, batch

    dropped = guidance.label_dropout(loss, 10, 0.15)
    share, seen = dropped(None, jax.random.key(0), batch)
    assert abs(share - 0.15) < 4.5 * np.sqrt(0.15 * 0.85 / 20_000)
    kept = np.asarray(seen["label"]) != 10
    np.testing.assert_array_equal(seen["label"][kept], batch["label"][kept])
    assert dropped(None, jax.random.key(0), batch, offset=1)[0] == share + 1
    for rate, expected in ((0.0, 0), (1.0, 1)):
        assert guidance.label_dropout(loss, 10, rate)(None, jax.random.key(0), batch)[0] == expected


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


def test_a_network_of_steps_is_given_the_indices_of_its_beta_table():
    table = schedules.linear_betas(50)
    schedule = schedules.from_betas(table)
    k = jnp.arange(50)
    times = (k + 1) / 50
    given = at_steps(predict_eps, 50)(schedule, times).c_noise
    np.testing.assert_allclose(given, k, atol=1e-12)
    np.testing.assert_allclose(schedule.alpha(times) ** 2, np.cumprod(1 - table), rtol=1e-10)


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
