"""Guidance whose law is the tilted one: Feynman-Kac sequential Monte Carlo around any rule."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_posterior, sample_keys, step_noise
from diffjax.guidance.pair import Rule
from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    Grid,
    Index,
    PRNGKeyArray,
    Samples,
    Scalar,
    Schedule,
)


class Corrected(NamedTuple):
    """What `corrected` returns.

    Attributes:
      x: samples (B, ...) at the last time, of equal weight.
      effective: effective sample size, 1 to B, of the weights gathered up to each step (n,).
    """

    x: Samples
    effective: Array


def systematic(key: PRNGKeyArray, log_weights: Array) -> Array:
    """Systematic resampling: indices (B,) whose expected counts are B times the weights.

    Args:
      key: consumed whole.
      log_weights: (B,), up to a constant.

    Returns:
      Rising indices.
    """
    n = log_weights.shape[0]
    cumulated = jnp.cumsum(jax.nn.softmax(log_weights))
    places = (jnp.arange(n) + jax.random.uniform(key)) / n
    return jnp.minimum(jnp.searchsorted(cumulated, places), n - 1)


def effective_size(log_weights: Array) -> Array:
    """1 over the sum of squared weights: Kong et al. 1994."""
    return 1 / jnp.sum(jax.nn.softmax(log_weights) ** 2)


def plain_rule(scale: Scalar) -> Rule:
    """u + scale (c - u)."""
    return lambda cond, uncond: uncond + scale * (cond - uncond)


def corrected(
    key: PRNGKeyArray,
    schedule: Schedule,
    both: Denoiser,
    scale: Scalar,
    x: Samples,
    ts: Grid,
    cond: Cond = None,
    rule: Rule | None = None,
    threshold: float = 0.5,
    first: Index = 0,
) -> Corrected:
    """Draw from the law p(x0 | c)^w p(x0)^(1-w), which guidance by itself does not.

    Reverse steps from t to s have one variance v and means m_c and m_u. The path law
    K_c^w K_u^(1-w) ends in the tilted law, since the forward steps of both are the same. A step
    is N(m_u + w (m_c - m_u), v) times exp(w (w - 1) |m_c - m_u|^2/(2 v)): guidance, and a weight.
    Of another rule, with the mean m_r, the ratio of the two normal densities is a weight as well.
    Particles are resampled where their weights have become uneven: Skreta et al. 2025 (Feynman-Kac
    correctors) in discrete time. Exact for many particles and short steps.

    Args:
      key: consumed whole.
      schedule: the noise schedule.
      both: from `pair`: both predictions at once. Neither may be clipped beyond its law.
      scale: w.
      x: the prior's noise at ts[0], one row for each particle.
      ts: n + 1 decreasing times; the step to a clean ts[-1] takes x0_hat and weighs nothing.
      cond: the condition, the same for every particle.
      rule: (conditional, unconditional) x0_hat -> x0_hat of the proposal; default u + w (c - u).
      threshold: resample where the effective sample size is below this share of B, 0 to 1.
      first: index of the first particle, when one draw is made in several batches.

    Returns:
      `Corrected`; its particles are those of this batch alone.
    """
    rule = rule or plain_rule(scale)
    axes = tuple(range(1, x.ndim))
    keys = sample_keys(jax.random.fold_in(key, 0), x.shape[0], first)

    def squares(a):
        return jnp.sum(a**2, axis=axes)

    def body(carry, given):
        x, log_weights = carry
        step, t, s = given
        c, u = both(x, t, cond).x0
        proposed = rule(c, u)
        means = [q_posterior(schedule, x0, x, t, s)[0] for x0 in (c, u, proposed)]
        variance = q_posterior(schedule, proposed, x, t, s)[1]
        clean = schedule.sigma(s) == 0
        over = jnp.where(clean, 0, 1 / (2 * jnp.where(clean, 1, variance)))
        noise = jnp.sqrt(jnp.maximum(variance, 0)) * step_noise(keys, step, 1, x)[0]
        moved = means[2] + noise
        target = means[1] + scale * (means[0] - means[1])
        tilt = scale * (scale - 1) * squares(means[0] - means[1])
        ratio = squares(noise) - squares(moved - target)
        log_weights = log_weights + over * (tilt + ratio)
        size = effective_size(log_weights)
        resample_key = jax.random.fold_in(key, step + 1)

        def resampled():
            return moved[systematic(resample_key, log_weights)], jnp.zeros_like(log_weights)

        last = step == ts.shape[0] - 2
        uneven = last | (size < threshold * x.shape[0])
        return jax.lax.cond(uneven, resampled, lambda: (moved, log_weights)), size

    ts = jnp.asarray(ts)
    moves = (jnp.arange(ts.shape[0] - 1), ts[:-1], ts[1:])
    (x, _), effective = jax.lax.scan(body, (x, jnp.zeros(x.shape[0], x.dtype)), moves)
    return Corrected(x, effective)
