"""MeanFlow and improved MeanFlow: average velocities from an identity with a JVP.

Both want `rectified_flow`, on which u = (x_t - x_s)/(t - s) obeys u = v - (t - s) du/dt, the
derivative taken along the flow (Geng et al. 2025, Eq. 6).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import q_sample
from diffjax.distill.distance import adaptive
from diffjax.distill.flow_map import average_velocity, two_time_denoiser
from diffjax.distill.teacher import Velocity, draw_intervals, velocity_of_data
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.types import (
    Array,
    LossFn,
    Network,
    Parameterization,
    Samples,
    Schedule,
    Time,
    TimeDensity,
    per_sample,
)

AverageVelocity = Callable[[Samples, Time, Time], Samples]
"""(x_t, t, s) -> u."""


def derivative_along(
    u: AverageVelocity, x: Samples, t: Time, s: Time, v: Samples
) -> tuple[Samples, Samples]:
    """u and its total derivative du/dt = v d_x u + d_t u at a fixed s: Geng et al. 2025, Eq. 8.

    Args:
      u: (x_t, t, s) -> average velocity.
      x: the sample at t.
      t: later time, a scalar or (B,).
      s: earlier time, t's shape.
      v: the velocity at x and t.

    Returns:
      u and du/dt, x's shape.
    """
    t = jnp.asarray(t, x.dtype)
    return jax.jvp(lambda x, t: u(x, t, s), (x, t), (v, jnp.ones_like(t)))


def mean_flow_target(u: AverageVelocity, x: Samples, t: Time, s: Time, v: Samples) -> Samples:
    """v - (t - s) du/dt, without gradient: Geng et al. 2025 (MeanFlow), Eq. 10.

    Arguments as for `derivative_along`.
    """
    _, rate = derivative_along(u, x, t, s, v)
    return jax.lax.stop_gradient(v - per_sample(jnp.asarray(t - s), x) * rate)


def _check_straight(schedule: Schedule) -> None:
    """Refuse a schedule whose flow between data and noise is not a straight line in time."""
    t = np.linspace(schedule.t_min, schedule.t_max, 5)
    with jax.ensure_compile_time_eval():
        alpha, sigma = np.asarray(schedule.alpha(t)), np.asarray(schedule.sigma(t))
    if not (np.allclose(alpha, 1 - t, atol=1e-5) and np.allclose(sigma, t, atol=1e-5)):
        raise InputError(
            "MeanFlow needs the schedule rectified_flow, alpha = 1 - t and sigma = t; got another. "
            "Use it, or distill.scm for a schedule that preserves variance."
        )


def _drawn(density: TimeDensity, schedule: Schedule, velocity: Velocity, together: float):
    """(key, batch, frozen) -> x_t, t, s, v and the condition."""

    def draw(key, batch, frozen):
        x0, cond = split_batch(batch)
        time_key, eps_key = jax.random.split(key)
        t, s = draw_intervals(density, time_key, x0.shape[0], together)
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        x_t = q_sample(schedule, x0, t, eps)
        return x_t, t, s, velocity(frozen, x0, eps, x_t, t, cond), cond

    return draw


def mean_flow(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    velocity: Velocity | None = None,
    together: float = 0.75,
    distance: Callable[[Array], Array] | None = None,
) -> LossFn:
    """MeanFlow: |u(x_t, t, s) - sg(v - (t - s) du/dt)|^2, Geng et al. 2025, Eq. 9-11.

    Args:
      network: of two times; see `two_time_denoiser`.
      schedule: `rectified_flow`.
      parameterization: `predict_velocity`, with which the network's output is u.
      density: of each of the two times; the paper's is `logit_normal(schedule, -0.4, 1.0)`.
      velocity: v; default that of the data, or `velocity_of_teacher` to distill.
      together: share of pairs with s = t, which are flow matching; the paper's 0.75.
      distance: of the difference; default `adaptive()`, whose power of 1 is the paper's.

    Returns:
      A `LossFn`; `frozen` is passed on to the velocity.

    Raises:
      InputError: the schedule is not that of rectified flow.
    """
    _check_straight(schedule)
    draw = _drawn(density, schedule, velocity or velocity_of_data(schedule), together)
    distance = adaptive() if distance is None else distance

    def loss(params, key, batch, *, frozen=None, **context):
        draw_key, network_key = jax.random.split(key)
        x_t, t, s, v, cond = draw(draw_key, batch, frozen)
        denoiser = two_time_denoiser(network, params, schedule, parameterization, network_key)
        u = average_velocity(schedule, denoiser)
        value, rate = derivative_along(lambda x, t, s: u(x, t, s, cond), x_t, t, s, v)
        target = jax.lax.stop_gradient(v - per_sample(t - s, x_t) * rate)
        return jnp.mean(distance(value - target)), {}

    return loss


def improved_mean_flow(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    velocity: Velocity | None = None,
    together: float = 0.5,
    distance: Callable[[Array], Array] | None = None,
) -> LossFn:
    """Improved MeanFlow: |u + (t - s) sg(du/dt) - v|^2, Geng et al. 2025 (iMF), section 4.

    The derivative is taken along the network's own velocity u(x_t, t, t), a function of x_t alone,
    so that the target is that of flow matching and does not depend on the network.

    Args:
      network: of two times; see `two_time_denoiser`.
      schedule: `rectified_flow`.
      parameterization: `predict_velocity`, with which the network's output is u.
      density: of each of the two times.
      velocity: v; default that of the data, or `velocity_of_teacher` to distill.
      together: share of pairs with s = t; the paper's 0.5.
      distance: of the difference; default `adaptive()`.

    Returns:
      A `LossFn`; `frozen` is passed on to the velocity.

    Raises:
      InputError: the schedule is not that of rectified flow.
    """
    _check_straight(schedule)
    draw = _drawn(density, schedule, velocity or velocity_of_data(schedule), together)
    distance = adaptive() if distance is None else distance

    def loss(params, key, batch, *, frozen=None, **context):
        draw_key, network_key = jax.random.split(key)
        x_t, t, s, v, cond = draw(draw_key, batch, frozen)
        denoiser = two_time_denoiser(network, params, schedule, parameterization, network_key)
        u = average_velocity(schedule, denoiser)
        own = jax.lax.stop_gradient(u(x_t, t, t, cond))
        value, rate = derivative_along(lambda x, t, s: u(x, t, s, cond), x_t, t, s, own)
        compound = value + per_sample(t - s, x_t) * jax.lax.stop_gradient(rate)
        return jnp.mean(distance(compound - v)), {}

    return loss
