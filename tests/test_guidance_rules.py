"""Guidance rules against the public implementations' numbers and against exact conditional laws."""

from functools import partial
from pathlib import Path

import golden_adapter
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import exact_denoiser, gaussian

from diffjax import guidance, samplers
from diffjax.errors import InputError
from diffjax.parameterization import predict_eps, predict_v, predict_velocity, predict_x0
from diffjax.schedules import linear_betas, rectified_flow
from diffjax.types import Prediction

pytestmark = pytest.mark.usefixtures("x64")

ARRAYS = np.load(Path(__file__).parent / "golden" / "guidance.npz")
CASES = {}
for _name in ARRAYS.files:
    _case, _key = _name.split("/")
    CASES.setdefault(_case, {})[_key] = ARRAYS[_name]
PROBLEM, PAIR = CASES.pop("problem"), CASES.pop("rules")
APG = "adaptive_projected_guidance_"

# --- golden -----------------------------------------------------------------------------

RULES = {  # case: (function of the adapter, settings)
    "cfg_rescale": ("rule_cfg_rescale", ["guidance_scale", "guidance_rescale"]),
    "apg": ("rule_apg", ["guidance_scale", None, APG + "rescale", "eta"]),
    "apg_momentum": ("rule_apg", ["guidance_scale", APG + "momentum", APG + "rescale", "eta"]),
    "cfg_zero_star": ("rule_cfg_zero_star", ["guidance_scale"]),
    "tcfg": ("rule_tcfg", ["guidance_scale"]),
    "mambo_g": ("rule_mambo_g", ["guidance_scale", "alpha"]),
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    """The first step of CFG-Zero* is zeroed there, which is not a part of the rule."""
    case, (function, settings) = CASES[f"rule-{name}"], RULES[name]
    first = 1 if name == "cfg_zero_star" else 0
    numbers = [0.0 if key is None else case[key].item() for key in settings]
    rule = golden_adapter.FUNCTIONS[function]
    ours = rule(PAIR["cond"][first:], PAIR["uncond"][first:], *numbers)
    np.testing.assert_allclose(ours, case["out"][first:], rtol=1e-6, atol=1e-9)


def test_frequency_rule():
    """Kornia's pyramid, whose sides are halved once."""
    case = CASES["rule-fdg"]
    scales = case["guidance_scales"].tolist()
    for c, u, out in zip(PAIR["cond"], PAIR["uncond"], case["out"], strict=True):
        ours = guidance.frequency_rule(jnp.asarray(c), jnp.asarray(u), scales)
        np.testing.assert_allclose(ours, out, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("threshold")])
def test_threshold(name):
    case = CASES[name]
    ours = golden_adapter.FUNCTIONS["threshold"](
        case["x"], case["quantile"].item(), case["max"].item()
    )
    np.testing.assert_allclose(ours, case["out"], rtol=1e-9)


RUNS = [name for name in CASES if name.startswith(("ddim", "flow", "edm"))]
OFTEN = {
    "ddim-cfg_rescale-eps-linear-trailing",
    "ddim-apg_momentum-eps-linear-trailing",
    "ddim-cfgpp_0.6-eps-linear-trailing",
    "flow-cfg_zero_star",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in OFTEN else pytest.mark.exhaustive) for n in RUNS],
)
def test_run(name):
    """Whole runs on a labelled mixture: the rule acts in its domain, of eps, x0 or velocity."""
    kind, rule, *domain = name.split("-")
    rule = rule.split("_")[0] if rule.startswith("cfgpp") else rule
    rule = "_".join(rule.split("_")[:2]) if rule.startswith("interval_") else rule
    case = CASES[name] | {"betas": linear_betas(), "domain": domain[0] if domain else ""}
    ours = golden_adapter.FUNCTIONS[f"run_{kind}_{rule}"](case, PROBLEM)
    np.testing.assert_allclose(ours, case["result"], rtol=1e-6, atol=1e-8)


# --- exact laws ---------------------------------------------------------------------------

FLOW = rectified_flow()
NULL = {"label": 1}
LABEL = {"label": jnp.zeros(2, int)}


def gaussians(conditional, unconditional, calls=None):
    """A denoiser of two Gaussians on the line: label 0 is conditional, 1 the null."""

    def denoiser(x, t, cond):
        if calls is not None:
            n = x.shape[0]
            jax.debug.callback(lambda: calls.append(n))
        each = [
            exact_denoiser(gaussian([m], s), FLOW)(x, t, None).x0
            for m, s in (conditional, unconditional)
        ]
        return Prediction(jnp.where(cond["label"][:, None] == 0, *each))

    return denoiser


def law(denoiser, sampler=None, steps=100):
    """Mean and variance of the probability flow of a denoiser that is affine in x: two samples."""
    ts = jnp.linspace(1.0, 0.0, steps + 1)
    x = jnp.asarray([[0.0], [1.0]])
    sampler = samplers.heun(FLOW) if sampler is None else sampler
    x = samplers.sample(jax.random.key(0), denoiser, sampler, x, ts, LABEL)
    return float(x[0, 0]), float(x[1, 0] - x[0, 0]) ** 2


def test_guidance_against_its_tilted_law():
    """Between N(1, 1/4) and N(0, 1) at scale 2: variance 1/16 where p_c^2/p_u has 1/7."""
    denoiser = gaussians((1.0, 0.5), (0.0, 1.0))
    mean, variance = law(guidance.classifier_free(denoiser, 2.0, NULL))
    np.testing.assert_allclose(variance, 0.0625, rtol=2e-3)
    assert abs(variance - 1 / 7) > 0.07
    assert abs(mean - 8 / 7) > 0.1
    mean, variance = law(guidance.classifier_free(denoiser, 1.0, NULL))
    np.testing.assert_allclose([mean, variance], [1, 0.25], rtol=2e-3)


def corrected_law(scale, rule=None, n=4000, steps=150):
    """Mean and variance of a corrected draw between N(1, 1/4) and N(0, 1), and the sizes."""
    both = guidance.pair(gaussians((1.0, 0.5), (0.0, 1.0)), NULL)
    ts, cond = jnp.linspace(1.0, 0.0, steps + 1), {"label": jnp.zeros(n, int)}
    x = jax.random.normal(jax.random.key(1), (n, 1))
    run = jax.jit(partial(guidance.corrected, rule=rule), static_argnums=(1, 2))
    drawn = run(jax.random.key(0), FLOW, both, scale, x, ts, cond)
    return float(drawn.x.mean()), float(drawn.x.var()), drawn.effective


@pytest.mark.parametrize(
    "rule", [None, pytest.param(lambda c, u: 0.3 * c + 0.7 * u, marks=pytest.mark.exhaustive)]
)
def test_corrected_guidance_has_the_tilted_law(rule):
    """N(8/7, 1/7) within 4 standard errors of the fewest particles, whatever the proposal."""
    mean, variance, sizes = corrected_law(2.0, rule)
    n = float(sizes.min())
    assert n > 300
    assert abs(mean - 8 / 7) < 4 * (1 / 7 / n) ** 0.5
    assert abs(variance - 1 / 7) < 4 / 7 * (2 / n) ** 0.5


@pytest.mark.exhaustive
def test_correction_of_no_guidance_weighs_nothing():
    mean, variance, sizes = corrected_law(1.0)
    np.testing.assert_allclose(sizes, 4000, rtol=1e-6)
    np.testing.assert_allclose([mean, variance], [1, 0.25], atol=0.03)


def test_a_linear_reward_of_gaussian_data_tilts_it_exactly():
    """N(m, s^2) exp(b x) is N(m + s^2 b, s^2)."""
    denoiser = gaussians((0.4, 0.7), (0.0, 1.0))
    guided = guidance.energy(denoiser, lambda x0, cond: -x0[:, 0], 1.5, FLOW)
    exact = gaussians((0.4 + 0.49 * 1.5, 0.7), (0.0, 1.0))
    x, t = jnp.asarray([[-1.0], [2.0]]), jnp.asarray([0.1, 0.8])
    np.testing.assert_allclose(guided(x, t, LABEL).x0, exact(x, t, LABEL).x0, rtol=1e-12)


def independent(x, t, cond):
    """Two coordinates, each a Gaussian that its own label narrows: labels 1 are the nulls."""
    each = [gaussians((m, 0.3), (0.0, 1.0)) for m in (1.0, -2.0)]
    columns = [
        d(x[:, i : i + 1], t, {"label": cond[name]}).x0
        for i, (d, name) in enumerate(zip(each, ("a", "b"), strict=True))
    ]
    return Prediction(jnp.concatenate(columns, axis=1))


@pytest.mark.exhaustive
def test_composition_of_independent_conditions_is_the_denoiser_of_all():
    """And of a negative weight it is "not": the mean moves away by as much."""
    x, none = jnp.asarray([[0.3, -1.0], [2.0, 0.5], [0.0, 0.1]]), jnp.ones(3, int)
    cond, null = {"a": none, "b": none}, {"a": 1, "b": 1}
    parts = [{"a": 0}, {"b": jnp.zeros(3, int)}]
    for t in (jnp.asarray(0.4), jnp.asarray([0.1, 0.5, 0.9])):
        ours = guidance.compose(independent, parts, [1.0, 1.0], null)(x, t, cond).x0
        both = independent(x, t, {"a": 0 * none, "b": 0 * none}).x0
        np.testing.assert_allclose(ours, both, rtol=1e-12)
        away = guidance.compose(independent, parts, [1.0, -1.0], null)(x, t, cond).x0
        free = independent(x, t, cond).x0
        np.testing.assert_allclose(away[:, 0], both[:, 0], rtol=1e-12)
        np.testing.assert_allclose(away[:, 1] - free[:, 1], free[:, 1] - both[:, 1], rtol=1e-9)
    with pytest.raises(InputError, match="got 2 conditions and 1 scales"):
        guidance.compose(independent, parts, [1.0], null)


def test_autoguidance_by_itself_and_by_the_unconditional():
    denoiser = gaussians((1.0, 0.5), (0.0, 1.0))
    x, t = jnp.asarray([[0.3], [2.0]]), jnp.asarray(0.4)
    same = guidance.autoguidance(denoiser, denoiser, 3.0)(x, t, LABEL).x0
    np.testing.assert_allclose(same, denoiser(x, t, LABEL).x0, rtol=1e-12)
    null = {"label": jnp.ones(2, int)}
    other = guidance.autoguidance(denoiser, lambda x, t, cond: denoiser(x, t, null), 3.0)
    free = guidance.classifier_free(denoiser, 3.0, NULL)(x, t, LABEL).x0
    np.testing.assert_allclose(other(x, t, LABEL).x0, free, rtol=1e-12)


# --- identities ---------------------------------------------------------------------------

PLAIN = {  # at these settings each is classifier-free guidance, in every domain
    "rescaled": lambda d, w, domain: guidance.rescaled(d, w, NULL, FLOW, 0.0, domain),
    "mambo_g": lambda d, w, domain: guidance.mambo_g(d, w, NULL, FLOW, 0.0, domain),
    "projected": lambda d, w, domain: guidance.adaptive_projected(
        d, w, NULL, FLOW, 1.0, domain=domain
    ),
}


@pytest.mark.parametrize("domain", [predict_x0, predict_eps, predict_v, predict_velocity])
@pytest.mark.parametrize("rule", PLAIN.values(), ids=PLAIN)
def test_a_rule_without_effect_is_plain_guidance_in_every_domain(rule, domain):
    """For a scale and a time per sample."""
    denoiser = gaussians((1.0, 0.5), (0.0, 1.0))
    x, t, scale = jnp.asarray([[0.3], [2.0]]), jnp.asarray([0.2, 0.7]), jnp.asarray([1.5, 4.0])
    plain = guidance.classifier_free(denoiser, scale, NULL)(x, t, LABEL).x0
    np.testing.assert_allclose(rule(denoiser, scale, domain)(x, t, LABEL).x0, plain, rtol=1e-9)


@pytest.mark.parametrize("rule", PLAIN.values(), ids=PLAIN)
def test_predictions_of_zero_are_guided(rule):
    """A norm or a deviation of 0 is no NaN."""
    zero = lambda x, t, cond: Prediction(0 * x)  # noqa: E731
    x = jnp.asarray([[0.3], [2.0]])
    assert jnp.all(rule(zero, 2.0, predict_x0)(x, jnp.asarray(0.5), LABEL).x0 == 0)


def test_the_parallel_part_is_what_projection_takes():
    """On the line every difference is parallel to the prediction: only u is left."""
    denoiser = gaussians((1.0, 0.5), (0.0, 1.0))
    x, t = jnp.asarray([[0.3], [2.0]]), jnp.asarray(0.5)
    ours = guidance.adaptive_projected(denoiser, 5.0, NULL, FLOW)(x, t, LABEL).x0
    free = denoiser(x, t, {"label": jnp.ones(2, int)}).x0
    np.testing.assert_allclose(ours, free, rtol=1e-9)


@pytest.mark.parametrize("compiled", [False, True])
def test_outside_the_interval_the_second_half_is_not_computed(compiled):
    """Calls of the network counted as they run: 2 samples without guidance, 4 with."""
    calls = []
    denoiser = gaussians((1.0, 0.5), (0.0, 1.0), calls)
    limited = guidance.interval(
        guidance.classifier_free(denoiser, 3.0, NULL), denoiser, FLOW, 0.25, 1.0
    )
    x = jnp.asarray([[0.3], [2.0]])
    run = jax.jit(limited) if compiled else limited
    for t, expected in [(0.9, 2), (0.5, 4), (0.3, 4), (0.2, 2), (1.0, 2)]:
        calls.clear()
        jax.block_until_ready(run(x, jnp.asarray(t), LABEL))
        jax.effects_barrier()
        assert calls == [expected], t


def test_an_interval_by_sample():
    denoiser = gaussians((1.0, 0.5), (0.0, 1.0))
    guided = guidance.classifier_free(denoiser, 3.0, NULL)
    limited = guidance.interval(guided, denoiser, FLOW, 0.25, 1.0)
    x, t = jnp.asarray([[0.3], [2.0]]), jnp.asarray([0.4, 0.8])
    ours = limited(x, t, LABEL).x0
    np.testing.assert_allclose(ours[0], guided(x, t, LABEL).x0[0], rtol=1e-12)
    np.testing.assert_allclose(ours[1], denoiser(x, t, LABEL).x0[1], rtol=1e-12)
    with pytest.raises(InputError, match=r"0 <= low < high; got 1.0 and 0.5"):
        guidance.interval(guided, denoiser, FLOW, 1.0, 0.5)


def test_a_scale_of_the_noise_level():
    """A step in log-SNR is the interval."""
    denoiser = gaussians((1.0, 0.5), (0.0, 1.0))

    def guide(scale):
        return guidance.classifier_free(denoiser, scale, NULL)

    ours = guidance.scheduled(guide, FLOW, lambda level: jnp.where(level >= 0, 3.0, 1.0))
    other = guidance.interval(guide(3.0), denoiser, FLOW, 0.0, 1.0)
    x = jnp.asarray([[0.3], [2.0]])
    for t in (0.3, 0.7, jnp.asarray([0.2, 0.9])):
        t = jnp.asarray(t)
        np.testing.assert_allclose(ours(x, t, LABEL).x0, other(x, t, LABEL).x0, rtol=1e-12)


def test_cfg_plus_plus_without_guidance():
    """Scale 0 is DDIM of the unconditional model."""
    denoiser = gaussians((1.0, 0.5), (0.0, 1.0))
    free = law(lambda x, t, cond: denoiser(x, t, {"label": jnp.ones(2, int)}), samplers.ddim(FLOW))
    both = guidance.pair(denoiser, NULL)
    np.testing.assert_allclose(law(both, guidance.cfg_plus_plus(FLOW, 0.0)), free, rtol=1e-9)


def test_momentum_of_zero_is_the_denoiser_without_a_state():
    """Through a sampler of two calls in a step."""
    denoiser = gaussians((1.0, 0.5), (0.2, 1.0))
    numbers = {"eta": 0.4, "limit": 2.0}
    stateless = guidance.adaptive_projected(denoiser, 3.0, NULL, FLOW, **numbers)
    sampler = guidance.adaptive_projected_sampler(samplers.heun(FLOW), 3.0, FLOW, 0.0, **numbers)
    ours = law(guidance.pair(denoiser, NULL), sampler, 10)
    np.testing.assert_allclose(ours, law(stateless, steps=10), rtol=1e-9)


def test_velocity_is_zero_from_a_time_on():
    """Zero-init: x stays where it is."""
    denoiser = gaussians((1.0, 0.5), (0.0, 1.0))
    guided = guidance.cfg_zero_star(denoiser, 3.0, NULL, FLOW, zero_from=0.8)
    x = jnp.asarray([[0.3], [2.0]])
    for t, s in ((1.0, 0.9), (0.85, 0.8)):
        step = samplers.sample(
            jax.random.key(0), guided, samplers.euler(FLOW), x, jnp.asarray([t, s]), LABEL
        )
        np.testing.assert_allclose(step, x, rtol=1e-9)
    moved = guided(x, jnp.asarray(0.7), LABEL).x0
    other = guidance.cfg_zero_star(denoiser, 3.0, NULL, FLOW)(x, jnp.asarray(0.7), LABEL).x0
    np.testing.assert_allclose(moved, other, rtol=1e-12)
