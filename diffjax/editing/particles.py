"""Asymptotically exact posterior sampling, and annealed sampling: twisted SMC and DAPS."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.diffusion import (
    eps_from_x0,
    posterior_variance,
    q_sample,
    sample_keys,
    step_noise,
)
from diffjax.guidance.corrected import effective_size, systematic
from diffjax.types import Array, Denoiser, Grid, Index, PRNGKeyArray, Samples, Scalar, Schedule


class Particles(NamedTuple):
    """What `twisted_smc` returns.

    Attributes:
      x: samples (B, ...) at the last time, each of weight 1/B after a last resampling.
      effective: effective sample size, 1 to B, before resampling after each step (n,).
    """

    x: Samples
    effective: Array


def twisted_smc(
    key: PRNGKeyArray,
    schedule: Schedule,
    denoiser: Denoiser,
    log_likelihood: Callable[[Samples, Array], Array],
    x: Samples,
    ts: Grid,
    cond=None,
) -> Particles:
    """Twisted diffusion sampler: Wu et al. 2023, Algorithm 1.

    One posterior by B particles. The proposal is the ancestral step of the denoiser shifted by
    sigma^2/alpha times the gradient of log p~(y | x_t); weights correct for the shift, so that the
    law of the samples is the posterior as B grows, whatever p~ is, if at the last time it is the
    likelihood itself.

    Args:
      key: consumed whole.
      schedule: the noise schedule.
      denoiser: of the prior.
      log_likelihood: (x0_hat (B, ...), t) -> log p~(y | x_t) (B,), exact at a clean t.
      x: the prior's noise at ts[0], one row per particle.
      ts: decreasing times, the last clean or nearly.
      cond: condition, or None.

    Returns:
      `Particles`.
    """
    ts = jnp.asarray(ts)
    axes = tuple(range(1, x.ndim))

    def twist(x, t):
        """log p~ (B,), its gradient in x, and x0_hat."""

        def total(x):
            x0 = denoiser(x, t, cond).x0
            value = log_likelihood(x0, t)
            return jnp.sum(value), (value, x0)

        (_, (value, x0)), gradient = jax.value_and_grad(total, has_aux=True)(x)
        return value, gradient, x0

    def mean_of(x, x0, t, s, variance):
        direction = jnp.sqrt(jnp.maximum(schedule.sigma(s) ** 2 - variance, 0))
        return schedule.alpha(s) * x0 + direction * eps_from_x0(schedule, x, t, x0)

    def body(carry, given):
        x, before, gradient, x0 = carry
        key, t, s = given
        draw_key, choice_key = jax.random.split(key)
        variance = jnp.maximum(posterior_variance(schedule, t, s), 1e-12)
        mean = mean_of(x, x0, t, s, variance)
        shift = variance * schedule.alpha(t) / schedule.alpha(s) * gradient
        moved = mean + shift + jnp.sqrt(variance) * jax.random.normal(draw_key, x.shape, x.dtype)
        prior = -jnp.sum((moved - mean) ** 2, axes) / (2 * variance)
        proposed = -jnp.sum((moved - mean - shift) ** 2, axes) / (2 * variance)
        end = schedule.sigma(s) == 0

        def noisy():
            return twist(moved, s)

        def clean():
            return log_likelihood(moved, s), jnp.zeros_like(moved), moved

        value, gradient, x0 = jax.lax.cond(end, clean, noisy)
        log_weights = prior - proposed + value - before
        chosen = systematic(choice_key, log_weights)
        state = jax.tree.map(lambda a: a[chosen], (moved, value, gradient, x0))
        return state, effective_size(log_weights)

    start_key, scan_key = jax.random.split(key)
    keys = jax.random.split(scan_key, ts.shape[0] - 1)
    value, gradient, x0 = twist(x, ts[0])
    first = systematic(start_key, value)
    state = jax.tree.map(lambda a: a[first], (x, value, gradient, x0))
    (x, *_), effective = jax.lax.scan(body, state, (keys, ts[:-1], ts[1:]))
    return Particles(x, effective)


def _noise_variance(schedule: Schedule, t: Array) -> Array:
    """(sigma/alpha)^2."""
    return (schedule.sigma(t) / schedule.alpha(t)) ** 2


def daps(
    key: PRNGKeyArray,
    schedule: Schedule,
    denoise: Callable[[Samples, Array], Samples],
    log_likelihood: Callable[[Samples], Array],
    x: Samples,
    ts: Grid,
    rate: Scalar = 0.1,
    steps: int = 50,
    variance: Callable[[Schedule, Array], Array] | None = None,
    first: Index = 0,
    longest: Scalar = jnp.inf,
) -> Samples:
    """DAPS: x0 given x_t and y by Langevin steps, then fresh noise: Zhang et al. 2025, Algorithm 1.

    p(x0 | x_t) is taken to be normal around x0_hat with variance r^2; levels are not coupled, so
    that errors of one do not last.

    Args:
      key: consumed whole.
      schedule: the noise schedule.
      denoise: (x_t, t) -> x0_hat, such as some steps of the probability flow.
      log_likelihood: x0 (B, ...) -> log p(y | x0) (B,).
      x: the prior's noise at ts[0].
      ts: decreasing times, the last clean.
      rate: length of a Langevin step over r^2, or over `longest` where that is less.
      steps: Langevin steps per level.
      variance: (schedule, t) -> r^2; default (sigma/alpha)^2.
      first: index of the first sample, when one draw is made in several batches.
      longest: such as the variance of the measurement's noise, beyond which steps diverge.

    Returns:
      x0 of the last level.
    """
    ts = jnp.asarray(ts)
    gradient = jax.grad(lambda x0: jnp.sum(log_likelihood(x0)))
    spread = variance or _noise_variance

    def level(x, given):
        key, t, s = given
        centre, r2 = denoise(x, t), spread(schedule, t)
        keys, length = sample_keys(key, x.shape[0], first), rate * jnp.minimum(r2, longest)

        def langevin(x0, i):
            slope = gradient(x0) - (x0 - centre) / r2
            return x0 + length * slope + jnp.sqrt(2 * length) * step_noise(keys, i, 1, x)[0], None

        x0, _ = jax.lax.scan(langevin, centre, jnp.arange(steps))
        return q_sample(schedule, x0, s, step_noise(keys, steps, 1, x)[0]), None

    keys = jax.random.split(key, ts.shape[0] - 1)
    return jax.lax.scan(level, x, (keys, ts[:-1], ts[1:]))[0]
