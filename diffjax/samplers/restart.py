"""Restart sampling: go back up the noise, down again by the same solver, several times.

How it fits the one scan: a step of the outer grid arrives at the lower end of a restart
interval. The same `step` then adds forward noise up to t_high, and scans over a grid of its own
back down, `repeats` times. Which steps those are is settled in `init`, which sees the
grid; the others skip the work through `lax.cond`. All noise of a step is drawn ahead, so
draws = the solver's + repeats (1 + steps draws) summed over the intervals.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffjax.diffusion import q_step
from diffjax.errors import InputError, check_positive
from diffjax.samplers.checks import SamplerOf, as_sampler, count
from diffjax.samplers.info import described, sampler_info
from diffjax.samplers.noise import draw_noise
from diffjax.samplers.runge_kutta import heun
from diffjax.schedules import logsnr
from diffjax.types import Sampler, Scalar, Schedule


class RestartInterval(NamedTuple):
    """One row of Xu et al. 2023, Table 3: down from t_high to t_low in `steps`, `repeats` times.

    Attributes:
      t_low: lower end; the nearest inner time of the grid stands in for it.
      t_high: upper end; may be traced, as may t_low.
      steps: solver steps from the top to the bottom (N_Restart - 1 of the released code).
      repeats: K, the number of times.
    """

    t_low: Any
    t_high: Any
    steps: int = 5
    repeats: int = 4

    def draws(self, sampler: Sampler) -> int:
        """Noise arrays that this interval wants."""
        return self.repeats * (1 + self.steps * sampler.draws)


def _check(schedule: Schedule, interval: RestartInterval) -> None:
    count("steps", interval.steps)
    count("repeats", interval.repeats)
    low, high = interval.t_low, interval.t_high
    if any(isinstance(t, jax.core.Tracer) for t in (low, high)):
        return
    if not 0 < low < high <= schedule.t_max:
        raise InputError(
            "a restart interval needs 0 < t_low < t_high <= t_max; got "
            f"t_low = {low}, t_high = {high} and t_max = {schedule.t_max}."
        )
    if schedule.alpha(jnp.asarray(high)) == 0:
        raise InputError(f"t_high = {high} has a zero SNR; restart from just below it.")


def _check_state(sampler: Sampler, x) -> None:
    """Refuse a solver whose state is a table of one grid: it cannot go on from another's."""
    shapes = [
        jax.tree.map(
            lambda leaf: leaf.shape,
            jax.eval_shape(sampler.init, x, jax.ShapeDtypeStruct((n,), x.dtype)),
        )
        for n in (3, 4)
    ]
    if shapes[0] != shapes[1]:
        raise InputError(
            "restart needs a solver that can change grids, and this one keeps weights for each "
            "step of its own; use heun, dpm_2, dpmpp_2s, or dpmpp_2m_sde with eta 0."
        )


def restart_grid(schedule: Schedule, t_high, t_low, n: int, rho: float = 7.0):
    """n + 1 times from t_high to t_low, (sigma/alpha)^(1/rho) evenly spaced; both ends exact."""
    high = jnp.exp(-logsnr(schedule, t_high) / (2 * rho))
    low = jnp.exp(-logsnr(schedule, t_low) / (2 * rho))
    inner = high + np.arange(1, n) / n * (low - high)
    inner = schedule.t_from_logsnr(-2 * rho * jnp.log(inner))
    t_high, t_low = jnp.asarray(t_high, inner.dtype), jnp.asarray(t_low, inner.dtype)
    return jnp.concatenate([t_high[None], inner, t_low[None]])


def _repeat(schedule, sampler, interval, noise, denoise, x, s):
    """From s up to t_high and back, `repeats` times: (x, state of the last way down)."""
    ts = restart_grid(schedule, interval.t_high, s, interval.steps)

    def descend(carry, part):
        (x, state), (noise, t, s) = carry, part
        noise = draw_noise(sampler, noise, t, s)
        x, state = sampler.step(noise, denoise, x, t, s, state)
        return (x, state), None

    def once(carry, noise):
        x, _ = carry
        x = q_step(schedule, x, s, ts[0], noise[0])
        down = noise[1:].reshape(interval.steps, sampler.draws, *x.shape)
        return lax.scan(descend, (x, sampler.init(x, ts)), (down, ts[:-1], ts[1:]))[0], None

    noise = noise.reshape(interval.repeats, -1, *x.shape)
    return lax.scan(once, (x, sampler.init(x, ts)), noise)[0]


def _restarted_calls(
    n: int, sampler: SamplerOf, intervals: Sequence[tuple] | None, steps: int, repeats: int, **_
) -> int:
    """The solver's calls, and those of its noisy steps in the intervals; one step has none."""
    calls = sampler_info(sampler).calls
    rows = [(None, None, steps, repeats)] if intervals is None else intervals
    again = sum(row.steps * row.repeats for row in (RestartInterval(*row) for row in rows))
    return calls(n) + (n > 1) * again * (calls(3) - calls(2))


@described("Xu et al. 2023, Eq. 3 and Alg. 2", calls=_restarted_calls)
def restart(
    schedule: Schedule,
    sampler: SamplerOf = heun,
    intervals: Sequence[tuple] | None = None,
    noise_min: Scalar = 0.06,
    noise_max: Scalar = 0.3,
    steps: int = 2,
    repeats: int = 2,
) -> Sampler:
    """Restart sampling around any sampler: Xu et al. 2023, Eq. 3 and Alg. 2.

    x_{t_high} = forward noise from x_{t_low}, then the solver back to t_low on a grid spaced as
    that of Karras et al. 2022. A solver with a state starts anew on the way down and goes on
    from there.

    Args:
      schedule: the noise schedule.
      sampler: the solver of the outer grid and of the ways down, or the constructor of one.
      intervals: `RestartInterval`s, or tuples of their fields, in any order. On a grid with
        no inner time below its t_high an interval is skipped. None is the one interval of
        the next four arguments, whose defaults are the example of the released code.
      noise_min: sigma/alpha at its lower end; may be traced, as may noise_max.
      noise_max: sigma/alpha at its upper end.
      steps: its solver steps from the top to the bottom.
      repeats: how many times it is gone through.

    Returns:
      A sampler whose state is the solver's and the times of restart. It makes the solver's
      denoiser calls, and for each interval those of `repeats` times `steps` of its steps more.

    Raises:
      InputError: there is no interval, or one is empty, beyond t_max or without a step; when
        sampling, the solver keeps weights for each step of its grid (`lms`, `unipc`, ...).
    """
    sampler = as_sampler(schedule, sampler)
    if intervals is None:
        check_positive("restart", noise_min=noise_min, noise_max=noise_max)
        ends = (schedule.t_from_logsnr(-2 * jnp.log(r)) for r in (noise_min, noise_max))
        intervals = [(*ends, steps, repeats)]
    intervals = [RestartInterval(*interval) for interval in intervals]
    if not intervals:
        raise InputError("restart needs at least one interval (t_low, t_high, steps, repeats).")
    for interval in intervals:
        _check(schedule, interval)

    def init(x, ts):
        _check_state(sampler, x)

        def place(interval):
            inner = jnp.append(ts[1:-1], jnp.inf)
            inner = jnp.where(inner < interval.t_high, inner, jnp.inf)
            return inner[jnp.argmin(jnp.abs(inner - interval.t_low))]

        return sampler.init(x, ts), [place(interval) for interval in intervals]

    def step(noise, denoise, x, t, s, state):
        inner_state, places = state
        x, inner_state = sampler.step(noise[: sampler.draws], denoise, x, t, s, inner_state)
        used = sampler.draws
        for interval, place in zip(intervals, places, strict=True):
            part = noise[used : used + interval.draws(sampler)]
            used += interval.draws(sampler)
            x, inner_state = lax.cond(
                s == place,
                lambda x, _, i=interval, z=part: _repeat(schedule, sampler, i, z, denoise, x, s),
                lambda x, inner_state: (x, inner_state),
                x,
                inner_state,
            )
        return x, (inner_state, places)

    draws = sampler.draws + sum(interval.draws(sampler) for interval in intervals)
    return Sampler(init, step, draws, sampler.inner)
