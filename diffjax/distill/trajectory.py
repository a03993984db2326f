"""Flow maps from any time to any other by consistency: CTM with a teacher, SoFlow without."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample
from diffjax.distill.distance import adaptive, squared
from diffjax.distill.flow_map import (
    average_velocity,
    flow_map,
    heun_step,
    two_time_denoiser,
)
from diffjax.distill.teacher import Teacher, Velocity, draw_intervals, velocity_of_data
from diffjax.losses import split_batch
from diffjax.schedules import clean_time, logsnr
from diffjax.types import (
    Array,
    Grid,
    LossFn,
    Network,
    Parameterization,
    Schedule,
    TimeDensity,
    per_sample,
)


def consistency_trajectory(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    teacher: Teacher,
    grid: Grid,
    weighting: Callable[[Array], Array],
    denoising: float = 1.0,
    distance: Callable[[Array], Array] = squared,
) -> LossFn:
    """CTM: the student's jump t -> s against the teacher's step t -> u and its own jump u -> s.

    Both ends are taken on to clean data by the student without gradient, where they are compared
    (Kim et al. 2024, Eq. 8-9), and the student's limit s = t is trained as a denoiser (Eq. 10).

    Args:
      network: of two times; see `two_time_denoiser`.
      schedule: the noise schedule of both.
      parameterization: what the student's network predicts.
      teacher: frozen -> denoiser; it takes one Heun step of the grid.
      grid: N + 1 decreasing times, the last clean.
      weighting: logsnr -> weight of the denoising term.
      denoising: factor on the denoising term.
      distance: of the difference at clean data.

    Returns:
      A `LossFn` that is given `frozen`; aux has the two parts, `consistency` and `denoising`.
    """
    ts = jnp.asarray(grid)
    n = ts.shape[0] - 1

    def loss(params, key, batch, *, frozen, **context):
        x0, cond = split_batch(batch)
        i_key, j_key, eps_key, first, second = jax.random.split(key, 5)
        i = jax.random.randint(i_key, x0.shape[:1], 0, n)
        j = i + 1 + jnp.floor(jax.random.uniform(j_key, i.shape) * (n - i)).astype(int)
        t, u, s = ts[i], ts[i + 1], ts[j]
        x_t = q_sample(schedule, x0, t, jax.random.normal(eps_key, x0.shape, x0.dtype))
        known = teacher(frozen)
        x_u = heun_step(schedule, lambda x, t: known(x, t, cond), x_t, t, u)
        past = two_time_denoiser(
            network, jax.lax.stop_gradient(params), schedule, parameterization, first
        )
        student = two_time_denoiser(network, params, schedule, parameterization, second)

        def from_noisy(move, x, t, s):
            clean = schedule.sigma(t) == 0
            moved = move(x, jnp.where(clean, ts[0], t), s, cond)
            return jnp.where(per_sample(clean, x), x, moved)

        still, moving = flow_map(schedule, past), flow_map(schedule, student)
        end = jnp.broadcast_to(clean_time(schedule), s.shape)
        wanted = from_noisy(still, from_noisy(still, x_u, u, s), s, end)
        got = from_noisy(still, moving(x_t, t, s, cond), s, end)
        consistency = jnp.mean(distance(got - jax.lax.stop_gradient(wanted)))
        error = squared(student(x_t, t, cond).x0 - x0)
        denoised = jnp.mean(weighting(logsnr(schedule, t)) * error)
        aux = {"consistency": consistency, "denoising": denoised}
        return consistency + denoising * denoised, aux

    return loss


def solution_flow(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    total: int,
    velocity: Velocity | None = None,
    share: float = 0.25,
    ratio: Callable[[Array], Array] = lambda progress: 0.1 + 0.9 * (1 - progress),
    distance: Callable[[Array], Array] | None = None,
) -> LossFn:
    """SoFlow: the map at t against itself a little earlier on the line of v, without a JVP.

    With l between s and t, |f(x_t, t, s) - sg f(x_t + (l - t) v, l, s)|^2 / (t - l)^2 in the
    units of the velocity, and flow matching at s = t (Luo et al. 2026, section 3).

    Args:
      network: of two times; see `two_time_denoiser`.
      schedule: the noise schedule; the paper's is `rectified_flow`.
      parameterization: what the network predicts.
      density: of each of the two times.
      total: training steps in all.
      velocity: default that of the data.
      share: of samples of the consistency loss; the others are flow matching.
      ratio: progress in [0, 1] -> (t - l)/(t - s), falling towards 0.
      distance: of the difference of velocities; default `adaptive()`.

    Returns:
      A `LossFn` whose context has `iteration`, the training steps taken; `frozen` is passed on to
      the velocity.
    """
    velocity = velocity_of_data(schedule) if velocity is None else velocity
    distance = adaptive() if distance is None else distance

    def loss(params, key, batch, *, frozen=None, iteration=0, **context):
        x0, cond = split_batch(batch)
        time_key, eps_key, first, second = jax.random.split(key, 4)
        t, s = draw_intervals(density, time_key, x0.shape[0], 1 - share)
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        x_t = q_sample(schedule, x0, t, eps)
        v = velocity(frozen, x0, eps, x_t, t, cond)
        between = t - jnp.clip(ratio(jnp.asarray(iteration) / total), 1e-3, 1) * (t - s)
        past = flow_map(
            schedule, two_time_denoiser(network, params, schedule, parameterization, first)
        )
        x_l = x_t + per_sample(between - t, x_t) * v
        ahead = jax.lax.stop_gradient(past(x_l, between, s, cond))
        student = two_time_denoiser(network, params, schedule, parameterization, second)
        u = average_velocity(schedule, student)(x_t, t, s, cond)
        same = per_sample(t == s, x_t)
        length = per_sample(jnp.where(t == s, 1, t - between), x_t)
        moved = flow_map(schedule, student)(x_t, t, s, cond)
        difference = jnp.where(same, u - v, (ahead - moved) / length)
        value = jnp.mean(distance(difference))
        return value, {"context": {"iteration": jnp.asarray(iteration) + 1}}

    return loss
