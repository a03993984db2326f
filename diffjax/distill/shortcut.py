"""Shortcut models: a step of 2d is taught by two steps of d."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.distill.distance import squared
from diffjax.distill.flow_map import Interval, jump, two_time_denoiser, x0_of_jump
from diffjax.distill.teacher import Velocity, noised_towards
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.schedules import logsnr
from diffjax.types import (
    Array,
    FlowMap,
    LossFn,
    Network,
    Parameterization,
    Samples,
    Schedule,
    Time,
    per_sample,
)


def doubled_target(
    schedule: Schedule, move: FlowMap, x: Samples, t: Time, middle: Time, s: Time, cond=None
) -> Samples:
    """The x0 whose jump from t to s is the jump to the middle and from there to s.

    On `rectified_flow` with equal steps its velocity is the mean of the two steps' (Frans et al.
    2025, Eq. 5).

    Args:
      schedule: the noise schedule.
      move: the flow map.
      x: the sample at t.
      t: where the steps begin, a scalar or (B,).
      middle: between t and s.
      s: where they end.
      cond: condition of each sample, or None.

    Returns:
      x's shape.
    """
    return x0_of_jump(schedule, x, t, s, move(move(x, t, middle, cond), middle, s, cond))


def shortcut(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    weighting: Callable[[Array], Array],
    steps: int = 128,
    share: float = 0.25,
    velocity: Velocity | None = None,
) -> LossFn:
    """Flow matching, and two steps of the student as the target of one: Frans et al. 2025, Eq. 6.

    Times are multiples of t_max/steps, and the lengths of a step powers of two of it, each as
    likely. Half a step of the shortest length is the flow itself, s = t.

    Args:
      network: of two times; see `two_time_denoiser`.
      schedule: the noise schedule, clean at time 0; the paper's is `rectified_flow`.
      parameterization: what the network predicts.
      weighting: logsnr -> weight of the squared error of x0; on `rectified_flow`
        `lambda level: (1 + jnp.exp(level / 2)) ** 2` is that of the paper's velocity.
      steps: a power of two; the paper's 128.
      share: of samples that are taught by two steps; the paper's 1/4.
      velocity: of flow matching; default that of the data, or `guided_data`.

    Returns:
      A `LossFn`; `frozen` is passed on to the velocity.

    Raises:
      InputError: steps is not a power of two.
    """
    if steps < 2 or steps & (steps - 1):
        raise InputError(f"steps of a shortcut model must be 2, 4, 8, ...; got {steps}.")
    noised = noised_towards(schedule, velocity)
    levels = steps.bit_length() - 1  # lengths 2^1 .. 2^levels, in units of t_max/steps

    def draw(key, batch):
        level_key, place_key, flow_key, kind_key = jax.random.split(key, 4)
        length = 2 ** jax.random.randint(level_key, (batch,), 1, levels + 1)
        end = jnp.floor(jax.random.uniform(place_key, (batch,)) * (steps // length))
        s, t = end * length, (end + 1) * length
        flow = jax.random.randint(flow_key, (batch,), 1, steps + 1)
        taught = jax.random.uniform(kind_key, (batch,)) < share
        unit = schedule.t_max / steps
        return taught, jnp.where(taught, t, flow) * unit, jnp.where(taught, s, flow) * unit

    def loss(params, key, batch, *, frozen=None, **context):
        x0, cond = split_batch(batch)
        draw_key, eps_key, first, second, last = jax.random.split(key, 5)
        taught, t, s = draw(draw_key, x0.shape[0])
        middle = (t + s) / 2
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        x_t, aim = noised(frozen, x0, t, eps, cond)
        near, far, student = (
            two_time_denoiser(network, params, schedule, parameterization, k)
            for k in (first, second, last)
        )
        smallest = (t - s) <= 2.5 * schedule.t_max / steps

        def half(denoiser, x, t, s):
            asked = jnp.where(smallest, t, s)  # the shortest step is the flow's own
            return jump(schedule, x, t, s, denoiser(x, Interval(t, asked), cond).x0)

        x_s = half(far, half(near, x_t, t, middle), middle, s)
        safe = jnp.where(taught, s, t / 2)  # any other time
        two = x0_of_jump(schedule, x_t, t, safe, jnp.where(per_sample(taught, x0), x_s, aim))
        target = jax.lax.stop_gradient(jnp.where(per_sample(taught, x0), two, aim))
        error = squared(student(x_t, Interval(t, s), cond).x0 - target)
        return jnp.mean(weighting(logsnr(schedule, t)) * error), {}

    return loss
