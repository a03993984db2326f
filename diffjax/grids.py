"""Time grids: n + 1 decreasing times for a sampler of n steps, all ending at clean data
except `linspace`, which ends where the multistep solvers of diffusers do.

`leading`, `trailing`, `linspace` and `respaced` are the integer spacings of a beta table
of T steps, step index k at t = t_max (k + 1)/T. `karras` and `uniform_logsnr` are spaced
in the noise level and suit every schedule of finite log-SNR at t_max. Where no finite time
is clean (`schedules.ve`, `schedules.learned_vp`) the last time is -inf, at which sigma is 0.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.schedules import clean_time, logsnr
from diffjax.types import Array, Grid, InputError, Schedule


def _check_steps(n: int, T: int | None = None) -> None:
    if n < 1 or (T is not None and n > T):
        most = "" if T is None else f" and at most T = {T}"
        raise InputError(
            f"a grid needs at least 1 step{most}; got {n}. Change the number of steps."
        )


def _from_steps(schedule: Schedule, steps: np.ndarray, T: int, clean: bool = True) -> Array:
    """Times of decreasing step indices, with the clean time appended."""
    ts = jnp.asarray(schedule.t_max * (steps + 1) / T)
    return jnp.append(ts, clean_time(schedule)) if clean else ts


def leading(schedule: Schedule, n: int, T: int = 1000) -> Grid:
    """Steps 0, T//n, 2 T//n, ...: the spacing of Song et al. 2021 (DDIM); never starts at T.

    Args:
      schedule: the noise schedule.
      n: number of steps, 1 to T.
      T: steps of the beta table.

    Returns:
      n + 1 decreasing times, the last clean.
    """
    _check_steps(n, T)
    return _from_steps(schedule, np.arange(n)[::-1] * (T // n), T)


def trailing(schedule: Schedule, n: int, T: int = 1000) -> Grid:
    """Steps T - 1, T - 1 - T/n, ...: starts at full noise (Lin et al. 2024, Table 2).

    Arguments and result as for `leading`.
    """
    _check_steps(n, T)
    return _from_steps(schedule, np.round(T * (1 - np.arange(n) / n)) - 1, T)


def linspace(schedule: Schedule, n: int, T: int = 1000) -> Grid:
    """n + 1 steps evenly from T - 1 to 0, both included, so that it ends at t = t_max/T.

    The grid of Lu et al. 2022 (DPM-Solver) in diffusers. Its last time is not clean: finish
    with `sample_truncated`, or take x at t_max/T as the sample.

    Args:
      schedule: the noise schedule.
      n: number of steps, 1 to T - 1.
      T: steps of the beta table.

    Returns:
      n + 1 decreasing times.
    """
    _check_steps(n, T - 1)
    return _from_steps(schedule, np.round(np.linspace(T - 1, 0, n + 1)), T, clean=False)


def respaced(schedule: Schedule, sections: str | Sequence[int], T: int = 1000) -> Array:
    """A number of steps for each section of the process: Nichol & Dhariwal 2021, section 4.

    Args:
      schedule: the noise schedule.
      sections: "10,15,20", or the counts themselves, from the clean end up; T is cut in as
        many equal sections. "ddim50" is the one integer stride that gives 50 steps.
      T: steps of the beta table.

    Returns:
      Decreasing times, the last clean.
    """
    return _from_steps(schedule, space_timesteps(sections, T)[::-1], T)


def space_timesteps(sections: str | Sequence[int], T: int = 1000) -> np.ndarray:
    """The step indices, increasing, that `respaced` keeps.

    Raises:
      InputError: a section is shorter than its count, or no integer stride fits.
    """
    if isinstance(sections, str) and sections.startswith("ddim"):
        wanted = int(sections.removeprefix("ddim"))
        for stride in range(1, T):
            if len(range(0, T, stride)) == wanted:
                return np.arange(0, T, stride)
        raise InputError(f"no integer stride gives {wanted} of {T} steps; try another number.")
    if isinstance(sections, str):
        sections = [int(count) for count in sections.split(",")]
    kept = []
    for part, count in zip(np.array_split(np.arange(T), len(sections)), sections, strict=True):
        if not 1 <= count <= len(part):
            raise InputError(
                f"a section of {len(part)} steps cannot keep {count}; ask for 1 to {len(part)}."
            )
        stride = (len(part) - 1) / max(count - 1, 1)
        kept.append(part[0] + np.round(stride * np.arange(count)).astype(int))
    return np.concatenate(kept)


def karras(
    schedule: Schedule,
    n: int,
    rho: float = 7.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Grid:
    """sigma^(1/rho) evenly spaced, then clean: Karras et al. 2022, Eq. 5.

    On a schedule with alpha other than 1, sigma stands for the ratio sigma/alpha.

    Args:
      schedule: the noise schedule.
      n: number of steps, at least 1.
      rho: how far steps are shortened towards low noise.
      sigma_min: lowest noise before clean; default that of t_min.
      sigma_max: highest noise; default that of t_max.

    Returns:
      n + 1 decreasing times, the last clean.
    """
    _check_steps(n)
    noisy, cleanest = _logsnr_range(schedule)
    low = jnp.exp(-cleanest / 2) if sigma_min is None else sigma_min
    high = jnp.exp(-noisy / 2) if sigma_max is None else sigma_max
    ratio = (high ** (1 / rho) + _ramp(n) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return _from_logsnr(schedule, -2 * jnp.log(ratio))


def uniform_logsnr(schedule: Schedule, n: int) -> Grid:
    """logsnr evenly spaced from t_max to t_min, then clean: Lu et al. 2022 (DPM-Solver).

    Args:
      schedule: the noise schedule; a zero terminal SNR has no such grid.
      n: number of steps, at least 1.

    Returns:
      n + 1 decreasing times, the last clean.
    """
    _check_steps(n)
    low, high = _logsnr_range(schedule)
    return _from_logsnr(schedule, low + _ramp(n) * (high - low))


def _ramp(n: int) -> Array:
    return jnp.arange(n) / max(n - 1, 1)


def _logsnr_range(schedule: Schedule) -> tuple[Array, Array]:
    """Log-SNR at t_max and at t_min."""
    low, high = logsnr(schedule, schedule.t_max), logsnr(schedule, schedule.t_min)
    if not isinstance(low, jax.core.Tracer) and jnp.isinf(low):
        raise InputError(
            "a grid spaced in noise level needs a finite log-SNR at t_max, and this schedule "
            "has a terminal SNR of zero; use grids.trailing."
        )
    return low, high


def _from_logsnr(schedule: Schedule, logsnrs: Array) -> Array:
    """Times of increasing log-SNRs, none beyond t_max, with the clean time appended."""
    ts = schedule.t_from_logsnr(jnp.append(logsnrs, jnp.inf))
    return jnp.minimum(ts, schedule.t_max)
