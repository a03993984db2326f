"""The forward process composes, and its posterior is Bayes' rule."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, TWO_MOONS, ZERO_TERMINAL_SNR, exact_denoiser, log_density
from scipy import integrate, stats

from diffjax import diffusion
from diffjax.types import Prediction

ALL = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def levels(schedule, n):
    """n increasing times, from clean data to t_max."""
    return jnp.linspace(0, schedule.t_max, n)


def affine(f, n):
    """Scales (n,) and standard deviations (n,) of n draws f(x, eps) = scale x + std eps."""
    one, zero = jnp.ones((n, 1)), jnp.zeros((n, 1))
    return np.asarray(f(one, zero))[:, 0], np.asarray(f(zero, one))[:, 0]


@pytest.mark.usefixtures("x64")
@ALL
def test_steps_compose(schedule):
    """Many steps of q(x_t | x_s) have the scale and variance of q(x_t | x0)."""
    ts = levels(schedule, 12)
    s, t = ts[:-1], ts[1:]
    steps = affine(lambda x, eps: diffusion.q_step(schedule, x, s, t, eps), 11)
    alpha, sigma = affine(lambda x, eps: diffusion.q_sample(schedule, x, t, eps), 11)
    total_scale, total_variance, totals = 1.0, 0.0, []
    for scale, std in zip(*steps, strict=True):
        total_scale, total_variance = total_scale * scale, total_variance * scale**2 + std**2
        totals.append([total_scale, total_variance])
    np.testing.assert_allclose(totals, np.stack([alpha, sigma**2], axis=1), rtol=1e-9)


@pytest.mark.usefixtures("x64")
@ALL
def test_posterior_is_bayes_rule(schedule):
    """q(x_s | x_t, x0) as the normalised product of q(x_t | x_s) and q(x_s | x0) on a line."""
    x0, x_t = 0.4, -0.3
    for s, t in [(0.2, 0.25), (0.1, 0.9), (0.5, 0.6)]:
        scale, variance = map(float, diffusion.transition(schedule, t, s))
        alpha, sigma = (float(f(jnp.asarray(s))) for f in (schedule.alpha, schedule.sigma))
        marginal = stats.norm(alpha * x0, sigma)
        given = partial(stats.norm.pdf, x_t, scale=np.sqrt(variance))
        spread = min(marginal.std(), np.sqrt(variance) / scale)
        centre = marginal.mean() if marginal.std() < np.sqrt(variance) / scale else x_t / scale
        x = np.linspace(centre - 12 * spread, centre + 12 * spread, 20001)
        weight = given(scale * x) * marginal.pdf(x)
        mean = np.sum(weight * x) / np.sum(weight)
        var = np.sum(weight * (x - mean) ** 2) / np.sum(weight)
        ours = diffusion.q_posterior(
            schedule, jnp.full((1, 1), x0), jnp.full((1, 1), x_t), jnp.asarray(t), jnp.asarray(s)
        )
        np.testing.assert_allclose(ours[0][0, 0], mean, rtol=1e-6)
        np.testing.assert_allclose(ours[1], var, rtol=1e-6)
        np.testing.assert_allclose(np.exp(ours[2]), var, rtol=1e-6)


@pytest.mark.usefixtures("x64")
@ALL
def test_reverse_variances_are_the_two_bounds(schedule):
    """Small is the variance for data that is a point, large for VP data of unit variance."""
    t, s = jnp.asarray([0.3, 0.9]), jnp.asarray([0.25, 0.2])
    prediction = Prediction(jnp.zeros((2, 1)), jnp.asarray([[0.25], [0.25]]))
    args = (schedule, t, s, prediction)
    small, large = diffusion.log_variance_small(*args), diffusion.log_variance_large(*args)
    scale, variance = diffusion.transition(schedule, t, s)
    precision = scale**2 / variance + 1 / schedule.sigma(s) ** 2  # of x_s given x_t and a point
    np.testing.assert_allclose(jnp.exp(-small), precision, rtol=1e-9)
    np.testing.assert_allclose(jnp.exp(large), variance, rtol=1e-9)
    learned = diffusion.log_variance_learned(*args)
    np.testing.assert_allclose(learned[:, 0], small + (large - small) / 4, rtol=1e-12)


def test_learned_variance_needs_a_fraction():
    with pytest.raises(ValueError, match="twice the channels"):
        diffusion.log_variance_learned(SCHEDULES["linear"], 0.5, 0.4, Prediction(jnp.zeros((2, 1))))


@ALL
def test_tiny_intervals_in_single_precision(schedule):
    """beta of an interval of 1/1000 keeps its digits; 1 - alpha_t^2/alpha_s^2 would not."""

    @jax.jit
    def variances(t):
        large = diffusion.transition(schedule, t[1:], t[:-1])[1]
        return large, diffusion.posterior_variance(schedule, t[2:], t[1:-1])

    t = levels(schedule, 1001)
    single = variances(t)
    with jax.enable_x64(True):
        double = variances(np.asarray(t, float))
    for ours, exact in zip(single, double, strict=True):
        np.testing.assert_allclose(ours, exact, rtol=3e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.7, 1.3), (-2.0, -0.8), (0.001, 1e-4)])
def test_gaussian_kl(shift):
    difference, log_variance = shift
    p, q = stats.norm(0.3, 0.6), stats.norm(0.3 + difference, 0.6 * np.exp(log_variance / 2))
    kl, _ = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -8, 8, epsabs=1e-12)
    arguments = (p.mean(), np.log(p.var()), q.mean(), np.log(q.var()))
    ours = diffusion.gaussian_kl(*map(jnp.asarray, arguments))
    np.testing.assert_allclose(ours, kl, rtol=1e-7, atol=1e-12)


@ALL
def test_prior_has_the_last_noise_level(schedule):
    x = np.asarray(diffusion.prior_sample(jax.random.key(0), schedule, (2000, 4)), float)
    sigma = float(schedule.sigma(jnp.asarray(schedule.t_max)))
    np.testing.assert_allclose(x.std(), sigma, rtol=4.5 / np.sqrt(2 * x.size))
    assert stats.kstest(x.ravel() / sigma, "norm").pvalue > 1e-4


@pytest.mark.usefixtures("x64")
@ALL
def test_score_is_the_gradient_of_the_density(schedule):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 2)))

    @jax.jit
    def both(t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x0 = exact_denoiser(TWO_MOONS, schedule)(x, t, None).x0
        gradient = jax.grad(lambda x: log_density(TWO_MOONS, x, alpha, sigma).sum())(x)
        return diffusion.score_from_x0(schedule, x, t, x0), gradient

    for level in (0.05, 0.4, 0.9):
        score, gradient = both(level)
        np.testing.assert_allclose(score, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("x64")
@ALL
def test_noise_and_velocity_of_a_sample(schedule):
    rng = np.random.default_rng(0)
    x0, eps = jnp.asarray(rng.standard_normal((2, 5, 3)))
    t = jnp.linspace(0.1, 0.9, 5) * schedule.t_max
    x_t = diffusion.q_sample(schedule, x0, t, eps)
    np.testing.assert_allclose(diffusion.eps_from_x0(schedule, x_t, t, x0), eps, rtol=1e-9)
    v = diffusion.v_from_x0(schedule, x_t, t, x0)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    # (x_t, v) is (x0, eps) turned and scaled: turning back gives both.
    norm = alpha**2 + sigma**2
    np.testing.assert_allclose((alpha * x_t - sigma * v) / norm, x0, rtol=1e-8)
    np.testing.assert_allclose((sigma * x_t + alpha * v) / norm, eps, rtol=1e-8)


@pytest.mark.parametrize("variance", [diffusion.log_variance_small, diffusion.log_variance_large])
def test_ends_are_finite(variance):
    """Zero terminal SNR at one end, clean data at the other."""
    schedule, x = ZERO_TERMINAL_SNR, jnp.ones((3, 2))
    t, s = jnp.asarray([1.0, 1.0, 0.001]), jnp.asarray([0.999, 0.0, 0.0])
    mean, var, log_var = diffusion.q_posterior(schedule, x / 2, x, t, s)
    assert np.all(np.isfinite(jnp.stack([var, log_var, variance(schedule, t, s, Prediction(x))])))
    # Nothing of pure noise is left in the mean, and clean data is the mean itself.
    np.testing.assert_allclose(mean[0], schedule.alpha(s[0]) / 2, rtol=1e-6)
    np.testing.assert_allclose(mean[1:], 0.5, rtol=1e-6)
