"""Score losses and the Wasserstein bound on data whose score and distances are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import SCHEDULES, TWO_MOONS, Mixture, draw, exact_denoiser, gaussian

from diffjax import diffusion, evaluation, losses, schedules, weighting
from diffjax.errors import InputError
from diffjax.models import Uncertainty
from diffjax.parameterization import predict_eps, predict_score, predict_x0
from diffjax.types import TimeDensity

SCHEDULE, T0, N = SCHEDULES["vp_linear"], 0.3, 20_000
STD = 0.6
ALPHA, SIGMA = (float(f(jnp.asarray(T0))) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
VARIANCE = ALPHA**2 * STD**2 + SIGMA**2  # of x_t for N(0, STD^2)
AT_T0 = TimeDensity(
    lambda: (),
    lambda key, batch, state: (jnp.full(batch, T0), jnp.ones(batch)),
    lambda state, t, losses: state,
)
COUNTING = AT_T0._replace(init=lambda: 0, update=lambda state, t, losses: state + 1)


def one(schedule, t):
    return jnp.ones_like(t)


def scaled_score(params, x, c_noise, cond, key):
    """params times the score of N(0, VARIANCE)."""
    return -params * x / VARIANCE


def gaussian_batch():
    return {"x": STD * jnp.asarray(np.random.default_rng(0).standard_normal((N, 3)), jnp.float32)}


SLICED = {
    "rademacher": partial(losses.sliced_score_matching, projections=2),
    "normal": partial(losses.sliced_score_matching, projection=jax.random.normal, projections=4),
    "plain": partial(losses.sliced_score_matching, variance_reduced=False),
}


# --- score matching ---------------------------------------------------------------------


def test_denoising_score_matching_of_a_gaussian():
    """Least at the true score, where what is left is E|eps/sigma|^2 - E|score|^2."""
    loss = losses.denoising_score_matching(scaled_score, SCHEDULE, predict_score, COUNTING, one)
    batch = gaussian_batch()

    @jax.jit
    def value_of(scale):
        return loss(scale, jax.random.key(0), batch, 0)

    value, aux = value_of(jnp.asarray(1.0))
    np.testing.assert_allclose(value, 1 / SIGMA**2 - 1 / VARIANCE, rtol=0.03)
    assert aux["context"]["density_state"] == 1
    worse = [value_of(jnp.asarray(scale))[0] - value for scale in (0.8, 1.2)]
    np.testing.assert_allclose(worse, 0.04 / VARIANCE, rtol=0.25)


@pytest.mark.parametrize("make", SLICED.values(), ids=SLICED)
def test_sliced_score_matching_of_a_gaussian(make):
    """Of c times the score: -c/v + c^2/(2 v), least at 1, where it is -1/(2 v)."""
    loss, batch = make(scaled_score, SCHEDULE, predict_score, AT_T0, one), gaussian_batch()

    @jax.jit
    @jax.value_and_grad
    def value_of(scale):
        return loss(scale, jax.random.key(1), batch)[0]

    for scale in (0.5, 1.0, 1.5):
        value, slope = value_of(jnp.asarray(scale))
        np.testing.assert_allclose(value, (-scale + scale**2 / 2) / VARIANCE, rtol=0.05, atol=0.01)
        np.testing.assert_allclose(slope, (scale - 1) / VARIANCE, atol=0.05 / VARIANCE)


def wrong(params, x, c_noise, cond, key):
    """A score that is not a Gaussian's, nor the data's."""
    return jnp.sin(2 * x) - x[:, ::-1] * jnp.array([[0.3, 1.0]])


@pytest.mark.parametrize("make", SLICED.values(), ids=SLICED)
def test_sliced_is_half_of_denoising_less_a_constant(make):
    """Vincent 2011, appendix: half of one is the other plus half of E|eps/sigma|^2.

    Of any network on any data; here on a mixture. The network is not near any optimum.
    """
    batch = {"x": draw(jax.random.key(2), TWO_MOONS, N)}
    arguments = (wrong, SCHEDULE, predict_score, AT_T0)
    denoising = jax.jit(losses.denoising_score_matching(*arguments))(None, jax.random.key(3), batch)
    sliced = jax.jit(make(*arguments))(None, jax.random.key(3), batch)
    np.testing.assert_allclose(denoising[0] / 2, sliced[0] + 0.5, atol=0.04)


@pytest.mark.exhaustive
def test_the_default_weight_is_the_loss_of_eps():
    """sigma^2 |s + eps/sigma|^2 is L_simple: the same number from the same key."""

    def network(params, x, c_noise, cond, key):
        return jnp.tanh(x) * params

    keys, params = jax.random.split(jax.random.key(4), 4), jnp.asarray(0.7)
    fixed = weighting.uniform(SCHEDULE)._replace(draw=AT_T0.draw)
    batch = gaussian_batch()
    score = losses.denoising_score_matching(network, SCHEDULE, predict_eps, fixed)
    simple = losses.denoising_loss(network, SCHEDULE, predict_eps, weighting.snr, fixed)
    difference = score(params, keys[0], batch)[0] - simple(params, keys[1], batch)[0]
    np.testing.assert_allclose(difference, 0, atol=0.02)  # other noise, 60,000 numbers
    assert losses.noise_variance(SCHEDULE, T0) == pytest.approx(SIGMA**2, rel=1e-6)


def test_likelihood_weighting():
    """g^2 as the weight: the factor between two losses at one time."""
    arguments = (scaled_score, SCHEDULE, predict_score, AT_T0)
    values = []
    for weight in (one, diffusion.diffusion_squared):
        loss = losses.denoising_score_matching(*arguments, weight)
        values.append(loss(jnp.asarray(0.5), jax.random.key(5), gaussian_batch())[0])
    np.testing.assert_allclose(values[1] / values[0], 0.1 + T0 * 19.9, rtol=1e-4)


# --- learned uncertainty ----------------------------------------------------------------


def uncertain(params, level):
    return jnp.full_like(level, params)


def test_learned_uncertainty_of_a_gaussian():
    """Least in u at the log of the weighted error, where the loss is 1 + u (EDM2, Eq. 21)."""

    def network(params, x, c_noise, cond, key):
        return params * exact_denoiser(gaussian(np.zeros(3), STD), SCHEDULE)(x, T0, cond).x0

    def predict(schedule, t):  # the network's input is x_t, and its output x0
        return predict_score(schedule, t)._replace(
            c_skip=jnp.zeros_like(t), c_out=jnp.ones_like(t), c_in=jnp.ones_like(t)
        )

    arguments = (SCHEDULE, predict, weighting.snr, COUNTING)
    loss = losses.learned_uncertainty(network, uncertain, *arguments)
    batch = gaussian_batch()
    exact = (ALPHA / SIGMA) ** 2 / (STD**-2 + (ALPHA / SIGMA) ** 2)

    def value(u, scale=1.0):
        params = {"network": jnp.asarray(scale), "uncertainty": u}
        return loss(params, jax.random.key(6), batch, 0)

    best, aux = value(jnp.asarray(np.log(exact)))
    np.testing.assert_allclose(best, 1 + np.log(exact), atol=0.03)
    np.testing.assert_allclose(aux["weighted"], exact, rtol=0.03)
    assert aux["context"]["density_state"] == 1
    slope = jax.grad(lambda u: value(u)[0])(jnp.log(aux["weighted"]))
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    for off in (-0.5, 0.5):
        assert value(jnp.asarray(np.log(exact) + off))[0] > best
    # With u = 0 it is the denoising loss itself, on the same draws.
    plain = losses.denoising_loss(network, *arguments)
    plain = plain(jnp.asarray(0.9), jax.random.key(6), batch, 0)
    np.testing.assert_allclose(value(jnp.asarray(0.0), 0.9)[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(value(jnp.asarray(3.0), 0.9)[1]["weighted"], plain[0], rtol=1e-6)


@pytest.mark.exhaustive
def test_the_network_of_uncertainty_finds_the_size_of_the_loss():
    """At every noise level: the exact denoiser's weighted error is SNR Var(x0 | x_t)."""
    exact = exact_denoiser(gaussian(np.zeros(3), STD), SCHEDULE)

    def network(params, x, c_noise, cond, key):
        return exact(x, c_noise / 1000, cond).x0

    module = Uncertainty(512)  # its range is that of an SNR-weighted loss
    params = module.init(jax.random.key(0), jnp.zeros(1))["params"]
    loss = losses.learned_uncertainty(
        network,
        lambda params, level: module.apply({"params": params}, -level / 8),
        SCHEDULE,
        predict_x0,
        weighting.snr,
        weighting.stratified(SCHEDULE),
    )
    batch = {"x": gaussian_batch()["x"][:1024]}

    def value(params, key):
        return loss({"network": None, "uncertainty": params}, key, batch)[0]

    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 300))

    def update(carry, key):
        params, state = carry
        change, state = optimizer.update(jax.grad(value)(params, key), state)
        return (optax.apply_updates(params, change), state), None

    keys = jax.random.split(jax.random.key(7), 300)
    start = params, optimizer.init(params)
    (params, _), _ = jax.jit(lambda start: jax.lax.scan(update, start, keys))(start)
    level = schedules.logsnr(SCHEDULE, jnp.linspace(0.05, 0.85, 17))
    wanted = level - jnp.log(STD**-2 + jnp.exp(level))
    assert jnp.ptp(wanted) > 5
    np.testing.assert_allclose(module.apply({"params": params}, -level / 8), wanted, atol=0.2)


# --- the Wasserstein bound --------------------------------------------------------------

PROCESSES = {
    "vp_linear": SCHEDULES["vp_linear"],
    "edm": schedules.edm(0.01, 20.0),
    "ve": schedules.ve(0.01, 20.0),
    "sub_vp": schedules.sub_vp(),
    "rectified_flow": schedules.rectified_flow()._replace(t_max=0.99),
}
PROCESS = pytest.mark.parametrize("schedule", PROCESSES.values(), ids=PROCESSES)


def fine(schedule, n=3000):
    ends = [-float(schedules.logsnr(schedule, t)) for t in (schedule.t_max, schedule.t_min)]
    return schedule.t_from_logsnr(-jnp.linspace(*ends, n + 1))


def marginal(schedule, t, std):
    """alpha, and the variance of x_t for N(m, std^2)."""
    alpha = schedule.alpha(t)
    return alpha, alpha**2 * std**2 + schedule.sigma(t) ** 2


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
@PROCESS
def test_bound_of_the_true_score(schedule):
    """Of Gaussian data the reverse SDE shrinks a distance at T by (alpha/v)_T / (alpha/v)_0."""
    ts = fine(schedule)
    alpha, variance = marginal(schedule, ts, STD)
    bound = evaluation.wasserstein_bound(schedule, ts, 0 * ts, -1 / variance, 0.4)
    gain = alpha / variance
    np.testing.assert_allclose(bound, 0.4 * gain[0] / gain[-1], rtol=1e-3)


@pytest.mark.usefixtures("x64")
@PROCESS
def test_bound_is_tight_for_a_moved_mean(schedule):
    """The score of N(m', s^2) for data N(m, s^2): every sample is off by alpha (m' - m)."""
    ts, distance = fine(schedule), 1.3  # |m' - m|
    alpha, variance = marginal(schedule, ts, STD)
    errors = alpha * distance / variance
    bound = evaluation.wasserstein_bound(schedule, ts, errors, -1 / variance, alpha[0] * distance)
    np.testing.assert_allclose(bound, alpha[-1] * distance, rtol=1e-3)


@pytest.mark.usefixtures("x64")
@PROCESS
@pytest.mark.parametrize("model", [0.3, 0.55, 1.2])
def test_bound_is_above_the_distance(schedule, model):
    """The score of N(0, s'^2) in 4 dimensions: W2 is sqrt(4) |s_0' - s_0|."""
    ts = fine(schedule)
    _, true = marginal(schedule, ts, STD)
    _, other = marginal(schedule, ts, model)
    errors = 2 * jnp.sqrt(true) * jnp.abs(1 / true - 1 / other)
    gap = 2 * jnp.abs(jnp.sqrt(true) - jnp.sqrt(other))  # W2 at each time
    bound = evaluation.wasserstein_bound(schedule, ts, errors, -1 / other, gap[0])
    assert gap[-1] < bound < 10 * gap[-1]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("mean", "std"), [(0.7, STD), (0.0, 0.9)])
def test_estimated_inputs_of_the_bound_of_a_gaussian(mean, std):
    """Data N(0, STD^2 I) in 3 dimensions, a model of N(mean, std^2 I): both scores are linear."""
    ts, x0 = fine(SCHEDULE, 8), gaussian_batch()["x"][:2000]
    model = exact_denoiser(gaussian([mean] * 3, std), SCHEDULE)
    true = exact_denoiser(gaussian([0.0] * 3, STD), SCHEDULE)
    estimate = jax.jit(evaluation.estimate_score_errors, static_argnums=(1, 2, 3))
    found = estimate(jax.random.key(8), model, true, SCHEDULE, x0, ts)
    alpha, of_data = marginal(SCHEDULE, ts, STD)
    _, of_model = marginal(SCHEDULE, ts, std)
    slope = 1 / of_data - 1 / of_model
    wanted = jnp.sqrt(3 * (of_data * slope**2 + (alpha * mean / of_model) ** 2))
    np.testing.assert_allclose(found.score_errors, wanted, rtol=0.03)
    np.testing.assert_allclose(found.lipschitz, -1 / of_model, rtol=1e-3)
    np.testing.assert_allclose(found.prior_distance, alpha[0] * STD * np.sqrt(3), rtol=0.02)
    bounds = [
        evaluation.wasserstein_bound(SCHEDULE, ts, *inputs)
        for inputs in (found, (wanted, -1 / of_model, found.prior_distance))
    ]
    np.testing.assert_allclose(*bounds, rtol=0.03)


@pytest.mark.exhaustive
def test_denoiser_of_a_data_set_is_that_of_its_points():
    data = np.random.default_rng(3).standard_normal((7, 2))
    points = Mixture(np.full(7, 1 / 7), data, np.zeros(7))
    x, t = jax.random.normal(jax.random.key(9), (5, 2)), jnp.linspace(0.1, 0.9, 5)
    ours = evaluation.empirical_denoiser(SCHEDULE, jnp.asarray(data, jnp.float32))
    wanted = exact_denoiser(points, SCHEDULE)(x, t, None).x0
    np.testing.assert_allclose(ours(x, t, None).x0, wanted, rtol=1e-3, atol=1e-4)


def test_bound_needs_one_number_per_time():
    ts = jnp.asarray([0.9, 0.5, 0.1])
    with pytest.raises(InputError, match="per time"):
        evaluation.wasserstein_bound(SCHEDULE, ts, jnp.ones(2), jnp.ones(2))
