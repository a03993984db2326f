"""Data distributions whose denoiser, score, probability flow and likelihood are exact.

With x_t = alpha x0 + sigma eps and x0 an isotropic Gaussian mixture, write y = x_t/alpha
and r = sigma/alpha: the posterior of x0 is again a mixture, in closed form.
"""

import itertools
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from diffjax import schedules
from diffjax.types import Denoiser, Prediction, Schedule, per_sample

SCHEDULES = {
    "linear": schedules.from_betas(schedules.linear_betas()),
    "cosine": schedules.from_betas(schedules.cosine_betas()),
    "scaled_linear": schedules.from_betas(schedules.scaled_linear_betas()),
    "sigmoid": schedules.from_betas(schedules.sigmoid_betas()),
    "vp_linear": schedules.vp_linear(),
    "vp_cosine": schedules.vp_cosine(),
    "edm": schedules.edm(),
}
ZERO_TERMINAL_SNR = schedules.from_betas(
    schedules.rescale_zero_terminal_snr(schedules.linear_betas())
)


class Mixture(NamedTuple):
    """Isotropic Gaussian mixture: weights (K,), means (K, d), stds (K,)."""

    weights: np.ndarray
    means: np.ndarray
    stds: np.ndarray


def gaussian(mean, std) -> Mixture:
    """One isotropic Gaussian as a mixture of one."""
    return Mixture(np.ones(1), np.asarray(mean, float)[None], np.asarray([std], float))


TWO_MOONS = Mixture(
    np.array([0.5, 0.3, 0.2]),
    np.array([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]]),
    np.array([0.4, 0.25, 0.5]),
)


def posterior_mean(mixture: Mixture, x_t, alpha, sigma):
    """E[x0 | x_t] for scalar alpha and sigma, finite at alpha 0 and at sigma 0.

    Uses the marginal of x_t itself, N(alpha m, alpha^2 s^2 + sigma^2), not y.
    """
    mixture = Mixture(*(jnp.asarray(leaf, float) for leaf in mixture))  # in today's precision
    variance = alpha**2 * mixture.stds**2 + sigma**2  # (K,)
    residual = x_t[:, None] - alpha * mixture.means[None]  # (B, K, d)
    normaliser = jnp.log(mixture.weights) - x_t.shape[-1] / 2 * jnp.log(variance)
    logits = normaliser[None] - jnp.sum(residual**2, -1) / (2 * variance[None])
    gain = alpha * mixture.stds**2 / variance
    means = mixture.means[None] + gain[None, :, None] * residual
    return jnp.sum(jax.nn.softmax(logits)[..., None] * means, axis=1)


def exact_denoiser(mixture: Mixture, schedule: Schedule) -> Denoiser:
    """E[x0 | x_t], for t a scalar or (B,)."""

    def denoiser(x, t, cond):
        flat = x.reshape(x.shape[0], -1)
        t = jnp.broadcast_to(t, x.shape[:1])

        def one(x, t):
            return posterior_mean(mixture, x[None], schedule.alpha(t), schedule.sigma(t))[0]

        return Prediction(jax.vmap(one)(flat, t).reshape(x.shape))

    return denoiser


def log_density(mixture: Mixture, x_t, alpha, sigma):
    """log p(x_t), for scalar alpha and sigma."""
    mixture = Mixture(*(jnp.asarray(leaf, float) for leaf in mixture))  # in today's precision
    variance = alpha**2 * mixture.stds**2 + sigma**2
    mixture = Mixture(*(jnp.asarray(leaf, float) for leaf in mixture))
    residual = x_t[:, None] - alpha * mixture.means[None]
    normaliser = jnp.log(mixture.weights) - x_t.shape[-1] / 2 * jnp.log(2 * jnp.pi * variance)
    logits = normaliser[None] - jnp.sum(residual**2, -1) / (2 * variance[None])
    return jax.nn.logsumexp(logits, axis=1)


def draw(key, mixture: Mixture, n: int):
    """n exact samples (n, d)."""
    which, noise = jax.random.split(key)
    k = jax.random.choice(which, len(mixture.weights), (n,), p=jnp.asarray(mixture.weights))
    z = jax.random.normal(noise, (n, mixture.means.shape[1]))
    return jnp.asarray(mixture.means)[k] + jnp.asarray(mixture.stds)[k][:, None] * z


def gaussian_flow(mean, std, schedule: Schedule, x, t, s):
    """The exact probability flow of N(mean, std^2 I) from time t to s.

    The flow keeps (x - alpha mean)/sqrt(alpha^2 std^2 + sigma^2) constant.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)

    def scale(t):
        return jnp.sqrt(schedule.alpha(t) ** 2 * std**2 + schedule.sigma(t) ** 2)

    mean = jnp.asarray(mean)[None]
    return schedule.alpha(s) * mean + scale(s) / scale(t) * (x - schedule.alpha(t) * mean)


@cache
def jitted_step(sampler, denoiser):
    """A step of an unconditional sampler, compiled once for all its grids."""

    @jax.jit
    def step(z, x, t, s, state):
        return sampler.step(z, lambda x, t: denoiser(x, t, None), x, t, s, state)

    return step


def drive(sampler, denoiser, x, ts, noise=()):
    """Step a sampler over ts with given noise, draw after draw; zeros where it has run out.

    Returns the result and x before each step (n, *x.shape).
    """
    noise = iter(noise)
    zeros = np.zeros(x.shape)
    step = jitted_step(sampler, denoiser)
    state = sampler.init(x, jnp.asarray(ts))
    trace = []
    for t, s in itertools.pairwise(np.asarray(ts)):
        trace.append(x)
        z = np.asarray([next(noise, zeros) for _ in range(sampler.draws)], x.dtype)
        x, state = step(z.reshape(sampler.draws, *x.shape), x, t, s, state)
    return x, np.stack(trace)


# --- flow maps ---------------------------------------------------------------------------


def _log_odds(mixture: Mixture, x, alpha, sigma):
    """log F(x_t) - log(1 - F(x_t)) of a mixture in one dimension, precise in both tails."""
    weights, means, stds = (jnp.asarray(leaf, float).reshape(-1) for leaf in mixture)
    z = (x[:, None] - (alpha * means)[None]) / jnp.sqrt(alpha**2 * stds**2 + sigma**2)[None]
    log_weights = jnp.log(weights)[None]
    below = jax.nn.logsumexp(log_weights + jax.scipy.stats.norm.logcdf(z), axis=1)
    above = jax.nn.logsumexp(log_weights + jax.scipy.stats.norm.logcdf(-z), axis=1)
    return below - above


def mixture_flow(mixture: Mixture, schedule: Schedule, x, t, s):
    """The exact flow map F_s^-1(F_t(x)) of a mixture in one dimension, x (B, 1).

    Bisection, and a Newton step whose derivatives in x and t are those of the map.
    """
    t, s = (jnp.broadcast_to(jnp.asarray(value, float), x.shape[:1]) for value in (t, s))

    def one(x, t, s):
        a, b = schedule.alpha(s), schedule.sigma(s)
        wanted = _log_odds(mixture, x, schedule.alpha(t), schedule.sigma(t))
        reach = a * jnp.max(jnp.abs(mixture.means)) + 40 * (jnp.max(mixture.stds) + b)

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            under = _log_odds(mixture, middle, a, b) < wanted
            return jnp.where(under, middle, low), jnp.where(under, high, middle)

        reach = reach * jnp.ones_like(x)
        ends = jax.lax.fori_loop(0, 60, halve, (-reach, reach))
        y = jax.lax.stop_gradient(sum(ends) / 2)
        value, slope = jax.jvp(lambda y: _log_odds(mixture, y, a, b), (y,), (jnp.ones_like(y),))
        return y - (value - wanted) / jax.lax.stop_gradient(slope)

    return jax.vmap(one)(x, t, s)


def network_of(denoiser: Denoiser, schedule: Schedule, parameterization, features=None):
    """A `Network` of exactly this denoiser, plus params["a"] (K,) times K features.

    Its c_noise is 1000 t. The denoiser may answer an `Interval`: then cond["until"] is read.
    `features` is (x, t) -> (K, *x.shape); by default five of them.
    """
    from diffjax.distill import Interval
    from diffjax.samplers.flow import time_of_angle

    def default(x, t):
        return jnp.stack([jnp.ones_like(x), x, jnp.tanh(2 * x), t * x, jnp.cos(x - t)])

    def network(params, x_in, c_noise, cond, key):
        t = c_noise / 1000
        c = jax.tree.map(lambda c: per_sample(c, x_in), parameterization(schedule, t))
        x = x_in / c.c_in
        cond, when = dict(cond or {}), t
        if "until" in cond:
            angles = cond.pop("until") * (jnp.pi / 20)
            s = jax.vmap(lambda angle: time_of_angle(schedule, angle))(angles)
            s = jnp.where(jnp.abs(s - t) < 1e-9, jax.lax.stop_gradient(t), s)
            when = Interval(t, s)
        x0 = denoiser(x, when, cond or None).x0
        exact = (x0 - c.c_skip * x) / c.c_out
        added = (features or default)(x, per_sample(t, x))
        return exact + jnp.tensordot(params["a"].astype(x.dtype), added, 1)

    return network


def reverse_moments(twist_variance, prior=0.25, noise=0.04, y=1.0):
    """Mean and deviation at the end of the reverse SDE of alpha = 1, sigma^2 = tau.

    Its score is that of the prior and of N(y; x0_hat, noise + twist_variance(tau)), linear in x.
    """

    def rate(log_tau, state):
        tau, (mean, variance) = np.exp(log_tau), state
        k = prior / (prior + tau)
        g = k / (noise + twist_variance(tau))
        pull = -1 / (prior + tau) - g * k
        return -tau * np.array([pull * mean + g * y, 2 * pull * variance + 1])

    span = (np.log(1e8), np.log(1e-9))
    end = solve_ivp(rate, span, [0, 1e8], method="LSODA", rtol=1e-9, atol=1e-12).y[:, -1]
    return end[0], np.sqrt(end[1])
