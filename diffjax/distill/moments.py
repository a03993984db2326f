"""Inductive moment matching: laws of jumps, compared by what groups of particles look like."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.distill.flow_map import flow_map, jump, two_time_denoiser
from diffjax.distill.teacher import Velocity, draw_intervals, noised_towards
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.schedules import logsnr
from diffjax.types import (
    Array,
    LossFn,
    Network,
    Parameterization,
    PerSample,
    Schedule,
    TimeDensity,
    per_sample,
)


def a_little_earlier(schedule: Schedule, decrement: float = 2.0**-12):
    """The time whose sigma/alpha is less by a share of the range: Zhou et al. 2025, section 4.

    Args:
      schedule: the noise schedule, with alpha(t_max) above 0.
      decrement: share of the range of sigma/alpha from clean to t_max.

    Returns:
      t -> r, at most t, clean where the decrement leads below it.
    """

    def earlier(t):
        ratio = schedule.sigma(t) / schedule.alpha(t)
        end = jnp.asarray(schedule.t_max)
        step = decrement * schedule.sigma(end) / schedule.alpha(end)
        return schedule.t_from_logsnr(-2 * jnp.log(jnp.maximum(ratio - step, 0)))

    return earlier


def laplace_discrepancy(x: Array, y: Array, width: PerSample) -> PerSample:
    """Squared maximum mean discrepancy of groups under exp(-width |x - y| / D).

    Zhou et al. 2025 (IMM), section 4; the averages hold the pairs of a sample with itself.

    Args:
      x: (G, M, D) groups of M particles.
      y: x's shape.
      width: (G,).

    Returns:
      (G,).
    """

    def mean_kernel(a, b):
        square = jnp.sum((a[:, :, None] - b[:, None]) ** 2, -1)
        distance = jnp.sqrt(jnp.maximum(square, 1e-16))
        return jnp.mean(jnp.exp(-width[:, None, None] * distance / a.shape[-1]), (1, 2))

    return mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)


def inductive_moment_matching(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    weighting: Callable[[Array], Array],
    group: int = 4,
    earlier: Callable[[Array], Array] | None = None,
    velocity: Velocity | None = None,
    width: float = 1.0,
) -> LossFn:
    """IMM: the law of jumps from t to s against that of jumps from a little earlier.

    Zhou et al. 2025, Eq. 12: groups of particles share t and s; r = max(s, earlier(t)); x_r has the
    data and noise of x_t; the kernel's width is 1 over the network's factor in the jump.

    Args:
      network: of two times.
      schedule: the noise schedule.
      parameterization: what the network predicts.
      density: of each of the two times, where alpha is above 0.
      weighting: logsnr of t -> weight of a group.
      group: particles M, a divisor of the batch.
      earlier: t -> r; default `a_little_earlier(schedule)`.
      velocity: from x_t to x_r; default that of the data, or `guided_data`, with which the law of
        x_r is right to first order in t - r.
      width: of the kernel, times that one; less reaches further, which few dimensions want.

    Returns:
      A `LossFn`; `frozen` is passed on to the velocity.

    Raises:
      InputError: when called with a batch that the group does not divide.
    """
    earlier = earlier or a_little_earlier(schedule)
    noised = noised_towards(schedule, velocity)

    def loss(params, key, batch, *, frozen=None, **context):
        x0, cond = split_batch(batch)
        if x0.shape[0] % group:
            raise InputError(
                f"inductive moment matching needs a batch of a multiple of {group}; got "
                f"{x0.shape[0]}."
            )
        time_key, eps_key, first, second = jax.random.split(key, 4)
        t, s = draw_intervals(density, time_key, x0.shape[0] // group, 0.0)
        r = jnp.maximum(s, earlier(t))
        t, s, r = (jnp.repeat(value, group) for value in (t, s, r))
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        make = lambda key, p: flow_map(  # noqa: E731
            schedule, two_time_denoiser(network, p, schedule, parameterization, key)
        )
        x_t, aim = noised(frozen, x0, t, eps, cond)
        student = make(first, params)(x_t, t, s, cond)
        x_r = jump(schedule, x_t, t, r, aim)
        past = make(second, jax.lax.stop_gradient(params))
        clean = schedule.sigma(r) == 0
        jumped = past(x_r, jnp.where(clean, t, r), s, cond)
        target = jax.lax.stop_gradient(jnp.where(per_sample(clean, x_r), x_r, jumped))
        ratio = schedule.sigma(s) / schedule.sigma(t)
        factor = (schedule.alpha(s) - ratio * schedule.alpha(t)) * parameterization(
            schedule, t
        ).c_out
        widths = width / jnp.maximum(jnp.abs(factor), 1e-6)
        groups = [a.reshape(-1, group, a[0].size) for a in (student, target)]
        discrepancy = laplace_discrepancy(*groups, widths[::group])
        return jnp.mean(weighting(logsnr(schedule, t[::group])) * discrepancy), {}

    return loss
