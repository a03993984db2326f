"""Generators trained by what whole batches look like: inductive moment matching and drifting."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample
from diffjax.distill.flow_map import flow_map, two_time_denoiser
from diffjax.distill.teacher import draw_intervals
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.parameterization import make_denoiser
from diffjax.schedules import logsnr
from diffjax.types import (
    Array,
    LossFn,
    Network,
    Parameterization,
    PerSample,
    Samples,
    Scalar,
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

    Returns:
      A `LossFn`.

    Raises:
      InputError: when called with a batch that the group does not divide.
    """
    earlier = earlier or a_little_earlier(schedule)

    def loss(params, key, batch, **context):
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
        student = make(first, params)(q_sample(schedule, x0, t, eps), t, s, cond)
        x_r = q_sample(schedule, x0, r, eps)
        past = make(second, jax.lax.stop_gradient(params))
        clean = schedule.sigma(r) == 0
        jumped = past(x_r, jnp.where(clean, t, r), s, cond)
        target = jax.lax.stop_gradient(jnp.where(per_sample(clean, x_r), x_r, jumped))
        ratio = schedule.sigma(s) / schedule.sigma(t)
        factor = (schedule.alpha(s) - ratio * schedule.alpha(t)) * parameterization(
            schedule, t
        ).c_out
        width = 1 / jnp.maximum(jnp.abs(factor), 1e-6)
        groups = [a.reshape(-1, group, a[0].size) for a in (student, target)]
        discrepancy = laplace_discrepancy(*groups, width[::group])
        return jnp.mean(weighting(logsnr(schedule, t[::group])) * discrepancy), {}

    return loss


def drift(x: Samples, positive: Samples, negative: Samples, temperature: Scalar) -> Samples:
    """Towards data and away from what is generated: Deng et al. 2026 (drifting models).

    V(x) = sum k(x, y+) y+ / sum k(x, y+) - sum k(x, y-) y- / sum k(x, y-), k = exp(-|x - y| /
    temperature): zero on average where both have one law.

    Args:
      x: (B, ...).
      positive: data (N, ...).
      negative: generated samples (M, ...).
      temperature: of the kernel, positive.

    Returns:
      x's shape.
    """
    flat = [a.reshape(a.shape[0], -1) for a in (x, positive, negative)]

    def pulled(y):
        square = jnp.sum((flat[0][:, None] - y[None]) ** 2, -1)
        distance = jnp.sqrt(jnp.maximum(square, 1e-16))
        return jax.nn.softmax(-distance / temperature, axis=1) @ y

    return (pulled(flat[1]) - pulled(flat[2])).reshape(x.shape)


def drifting(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    temperature: Scalar = 0.1,
    features: Callable[[Samples], Array] = lambda x: x,
) -> LossFn:
    """|phi(x) - sg(phi(x) + V)|^2 of one-step samples x: Deng et al. 2026 (drifting models).

    Half of the generated batch moves, and the other half is what it is driven away from.

    Args:
      network: of one time; the generator is x0_hat(sigma_T z, t_max).
      schedule: the noise schedule.
      parameterization: what the network predicts, finite at t_max.
      temperature: of the kernel, in units of the features.
      features: phi, (B, ...) -> (B, ...), frozen; default the samples themselves.

    Returns:
      A `LossFn` of unconditional batches of an even size.
    """

    def loss(params, key, batch, **context):
        data, cond = split_batch(batch)
        z_key, network_key = jax.random.split(key)
        end = jnp.full(data.shape[:1], schedule.t_max, data.dtype)
        z = schedule.sigma(end[0]) * jax.random.normal(z_key, data.shape, data.dtype)
        denoiser = make_denoiser(network, params, schedule, parameterization, network_key)
        x = features(denoiser(z, end, cond).x0)
        moving, others = jnp.split(x, 2)
        positive, _ = jnp.split(features(data), 2)
        still = jax.lax.stop_gradient(moving)
        goal = still + drift(still, positive, jax.lax.stop_gradient(others), temperature)
        return jnp.mean((moving - jax.lax.stop_gradient(goal)) ** 2), {}

    return loss
