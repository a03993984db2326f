"""The variational bound and the losses against closed forms and the true likelihood."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, exact_denoiser, gaussian
from scipy import stats

from diffjax import diffusion, grids, losses, schedules, weighting
from diffjax.likelihood import variational_bound
from diffjax.parameterization import predict_eps
from diffjax.types import Prediction

T = 100
SCHEDULE = schedules.from_betas(schedules.linear_betas(T))
MEAN, STD, N, D = 0.1, 0.25, 3000, 4  # over 3.5 standard deviations lie within [-1, 1]
GRID = np.arange(256) / 127.5 - 1  # 8-bit data


def noise_ratio(t):
    """sigma/alpha in float64."""
    with jax.enable_x64(True):
        return float(SCHEDULE.sigma(jnp.asarray(t)) / SCHEDULE.alpha(jnp.asarray(t)))


def kl_of_interval(t, s):
    """E KL(q(x_s | x_t, x0) || p(x_s | x_t)) in nats per dimension, for Gaussian data.

    With equal variances it is half the increase of the SNR times the error of x0_hat
    (Kingma et al. 2021, Eq. 14), and that error is Var(x0 | x_t).
    """
    snr_t, snr_s = noise_ratio(t) ** -2, noise_ratio(s) ** -2
    return (snr_s - snr_t) / 2 / (STD**-2 + snr_t)


def decoder_std():
    """The last step has the posterior variance of the one before it."""
    with jax.enable_x64(True):
        t = jnp.asarray([2 / T, 1 / T])
        return float(jnp.sqrt(diffusion.posterior_variance(SCHEDULE, *t)))


def data(n=N):
    """Gaussian data on the 8-bit grid."""
    x = MEAN + STD * np.random.default_rng(0).standard_normal((n, D))
    return jnp.asarray(np.clip(np.round((x + 1) * 127.5), 0, 255) / 127.5 - 1, jnp.float32)


@cache
def bound():
    denoiser = exact_denoiser(gaussian([MEAN] * D, STD), SCHEDULE)
    ts = grids.trailing(SCHEDULE, T, T)
    x0 = data()
    return (
        x0,
        ts,
        jax.jit(lambda x0: variational_bound(jax.random.key(0), denoiser, SCHEDULE, x0, ts))(x0),
    )


@pytest.mark.exhaustive
def test_bound_of_gaussian_data():
    x0, ts, result = bound()
    np.testing.assert_allclose(result.total, result.prior + result.terms.sum(0), rtol=1e-5)
    # Each interval, within 5 standard errors of its own mean, and 2 % for the rounding to 8 bits.
    terms = np.asarray(result.terms, float)
    exact = [kl_of_interval(t, s) / np.log(2) for t, s in itertools.pairwise(ts[:-1])]
    errors = 5 * terms[:-1].std(1) / np.sqrt(N) + 0.02 * np.asarray(exact)
    assert np.all(np.abs(terms[:-1].mean(1) - exact) < errors)
    # Near clean data the error is that of the noise, a new draw in each interval.
    assert abs(np.corrcoef(terms[-3], terms[-2])[0, 1]) < 0.1
    # The decoder: a Gaussian of the last reverse variance around x0_hat, per bin of 2/255.
    std, error = decoder_std(), 1 / (STD**-2 + noise_ratio(1 / T) ** -2)
    nats = np.log(std * np.sqrt(2 * np.pi) / (2 / 255)) + error / (2 * std**2)
    np.testing.assert_allclose(terms[-1].mean(), nats / np.log(2), rtol=0.01)
    # KL(N(alpha x0, sigma^2) || N(0, sigma^2)) = x0^2 SNR / 2.
    prior = np.mean(np.square(x0), 1) / noise_ratio(1.0) ** 2 / 2 / np.log(2)
    np.testing.assert_allclose(result.prior, prior, rtol=1e-4)


def test_bound_is_above_the_likelihood():
    x0, _, result = bound()
    x = np.asarray(x0, float)
    edges = [np.where(x < -0.999, -np.inf, x - 1 / 255), np.where(x > 0.999, np.inf, x + 1 / 255)]
    low, high = (stats.norm.cdf(edge, MEAN, STD) for edge in edges)
    true = -np.log2(high - low).mean(1)
    gap = np.asarray(result.total, float) - true
    assert gap.mean() > 5 * gap.std() / np.sqrt(N)


def test_bound_of_a_point():
    """A model that knows the point errs nowhere: only the prior and its 8-bit bin remain."""
    x0 = jnp.full((50, D), float(GRID[140]))
    denoiser = exact_denoiser(gaussian([GRID[140]] * D, 0.0), SCHEDULE)
    ts = grids.trailing(SCHEDULE, T, T)
    result = variational_bound(jax.random.key(0), denoiser, SCHEDULE, x0, ts)
    np.testing.assert_allclose(result.terms[:-1], 0, atol=1e-6)
    inside = 2 * stats.norm.cdf(1 / 255 / decoder_std()) - 1
    np.testing.assert_allclose(result.terms[-1], -np.log2(inside), rtol=0.01)


# --- decoder ----------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [-1.0, -0.3, 0.0, 0.9999, 1.3])
@pytest.mark.parametrize("std", [0.02, 0.1, 1.0])
def test_decoder_is_a_distribution(mean, std):
    """Over the 256 values it sums to 1, and agrees with the exact integrals."""
    x = jnp.asarray(GRID, jnp.float32)[None]
    mean_of = jnp.full(x.shape, mean)
    log_likelihood = losses.discretized_gaussian_log_likelihood(
        x, mean_of, jnp.full(x.shape, np.log(std))
    )
    p = np.exp(np.asarray(log_likelihood[0], float))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    edges = np.concatenate([[-np.inf], (GRID[1:] + GRID[:-1]) / 2, [np.inf]])
    exact = np.diff(stats.norm.cdf(edges, mean, std))
    assert np.abs(p - exact).max() < 4e-4  # twice the error of the distribution function
    assert np.all(log_likelihood >= np.log(1e-12) - 1e-3)


def test_decoder_of_the_impossible_has_a_finite_gradient():
    def far(mean, log_scale):
        x = jnp.asarray([[-1.0, 0.0, 1.0]])
        return losses.discretized_gaussian_log_likelihood(x, mean, log_scale).sum()

    mean, log_scale = jnp.full((1, 3), 0.8), jnp.full((1, 3), -6.0)
    for gradient in jax.grad(far, (0, 1))(mean, log_scale):
        assert np.all(np.isfinite(gradient))
    nearer = jax.grad(far)(mean, jnp.full((1, 3), 0.0))
    assert np.all(np.sign(nearer[0]) == [-1, -1, 1])  # each mean is pulled to its value


# --- losses -----------------------------------------------------------------------------


def hybrid_network(params, x, c_noise, cond, key):
    """eps and the raw variance, each a parameter of its own."""
    return jnp.concatenate([params["eps"] * x, params["variance"] * jnp.ones_like(x)], axis=-1)


PARAMS = {"eps": jnp.asarray(0.8), "variance": jnp.asarray(0.1)}
BATCH = {"x": data(16)}


@jax.jit
def gradients(t):
    """Of the two parts of the hybrid loss at one time."""
    density = weighting.uniform(SCHEDULE)._replace(
        draw=lambda key, batch, state: (jnp.full(batch, t), jnp.ones(batch))
    )
    loss = losses.hybrid_loss(hybrid_network, SCHEDULE, predict_eps, density, T)
    parts = jax.jacrev(lambda params: loss(params, jax.random.key(0), BATCH)[1])(PARAMS)
    return parts["vb"], parts["mse"]


@pytest.mark.parametrize("k", [1, 2, 50, T])
def test_hybrid_bound_trains_the_variance_alone(k):
    vb, mse = gradients(jnp.asarray(k / T, jnp.float32))
    assert vb["eps"] == 0
    assert mse["variance"] == 0
    assert np.isfinite(vb["variance"])
    assert np.isfinite(mse["eps"])
    assert vb["variance"] != 0
    assert mse["eps"] != 0


@pytest.mark.exhaustive
def test_hybrid_loss_is_the_sum_of_its_parts():
    density = weighting.on_steps(weighting.uniform(SCHEDULE), SCHEDULE, T)
    loss = losses.hybrid_loss(hybrid_network, SCHEDULE, predict_eps, density, T)
    value, aux = loss(PARAMS, jax.random.key(1), BATCH)
    np.testing.assert_allclose(value, aux["mse"] + aux["vb"], rtol=1e-6)
    # The variance channels leave the squared error of eps as the plain loss has it.
    plain = losses.denoising_loss(
        lambda params, x, *rest: params["eps"] * x, SCHEDULE, predict_eps, weighting.snr, density
    )
    np.testing.assert_allclose(plain(PARAMS, jax.random.key(1), BATCH)[0], aux["mse"], rtol=1e-4)


@pytest.mark.exhaustive
def test_hybrid_loss_rounds_times_to_the_steps_of_its_table():
    """A continuous density and the rounded one are the same loss: both see the steps k/T."""
    seen = []

    def network(params, x, c_noise, cond, key):
        seen.append(c_noise / 1000 * T)
        return hybrid_network(params, x, c_noise, cond, key)

    uniform = weighting.uniform(SCHEDULE)
    for density in (uniform, weighting.on_steps(uniform, SCHEDULE, T)):
        loss = losses.hybrid_loss(network, SCHEDULE, predict_eps, density, T)
        seen.append(loss(PARAMS, jax.random.key(1), BATCH)[0])
    times, value, again, same = seen
    np.testing.assert_allclose(times, np.round(times), atol=1e-4)
    np.testing.assert_allclose(again, times, rtol=1e-6)
    np.testing.assert_allclose(same, value, rtol=1e-5)


@pytest.mark.exhaustive
def test_bound_prefers_the_right_variance():
    """Of learned fractions, the bound of unit Gaussian data is least at 1, the large variance."""
    schedule = SCHEDULES["linear"]
    x0, eps = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4000, 4)), jnp.float32)
    t, s = jnp.full(4000, 0.004), jnp.full(4000, 0.003)
    x_t = diffusion.q_sample(schedule, x0, t, eps)
    mean = exact_denoiser(gaussian(np.zeros(4), 1.0), schedule)(x_t, t, None).x0

    @jax.jit
    def vb(fraction):
        prediction = Prediction(mean, jnp.full(mean.shape, fraction))
        learned = diffusion.log_variance_learned
        return losses.vb_term(schedule, lambda x, t: prediction, learned, x0, x_t, t, s).mean()

    values = [vb(fraction) for fraction in (0.0, 0.5, 0.9, 1.0, 1.2)]
    assert np.argmin(values) == 3, values


@pytest.mark.exhaustive
def test_denoising_loss_of_the_best_network():
    """The exact denoiser's loss is E Var(x0 | x_t); density state and importance pass through."""
    schedule, n = SCHEDULES["vp_linear"], 20_000
    t0 = 0.4

    def network(params, x, c_noise, cond, key):
        x0 = exact_denoiser(gaussian(np.zeros(2), STD), schedule)(x, c_noise / 1000, cond).x0
        return diffusion.eps_from_x0(schedule, x, c_noise / 1000, x0)

    def draw(key, batch, state):
        return jnp.full(batch, t0), jnp.full(batch, 3.0)

    counting = weighting.TimeDensity(lambda: 0, draw, lambda state, t, losses: state + 1)
    loss = losses.denoising_loss(network, schedule, predict_eps, weighting.unit, counting)
    x0 = STD * jnp.asarray(np.random.default_rng(2).standard_normal((n, 2)), jnp.float32)
    value, aux = loss(None, jax.random.key(0), {"x": x0}, 0)
    alpha, sigma = schedule.alpha(jnp.asarray(t0)), schedule.sigma(jnp.asarray(t0))
    exact = 3 / (STD**-2 + float(alpha / sigma) ** 2)
    np.testing.assert_allclose(value, exact, rtol=4.5 / np.sqrt(n))
    assert aux["context"]["density_state"] == 1
    assert loss(None, jax.random.key(0), {"x": x0}, 1)[1]["context"]["density_state"] == 2


def test_an_unconditional_loss_leaves_labels_aside():
    seen = []
    loss = losses.unconditional(lambda params, key, batch, step: (step, seen.append(set(batch))))
    assert (
        loss(None, None, {"x": jnp.ones(2), "label": jnp.ones(2), "caption": None}, step=3)[0] == 3
    )
    assert seen == [{"x"}]
