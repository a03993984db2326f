"""The integer spacings of a beta table of T steps, step index k at t = t_max (k + 1)/T."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.schedules import clean_time
from diffjax.types import Array, Grid, Schedule


def check_steps(n: Any, T: int | None = None) -> None:
    """Raise an InputError unless n is a number of steps, at most T."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise InputError(f"a grid needs a whole number of steps; got {n!r}.")
    if n < 1 or (T is not None and n > T):
        most = "" if T is None else f" and at most T = {T}"
        raise InputError(
            f"a grid needs at least 1 step{most}; got {n}. Change the number of steps."
        )


def grid_maker(make: Callable[..., Array]) -> Callable[..., Array]:
    """The maker of a grid, which raises an InputError where its times do not decrease.

    Times that follow from known numbers are known inside `jax.jit` too, and so looked at;
    those of a traced schedule are taken as they are.
    """

    @wraps(make)
    def checked(*args, **kwargs):
        with jax.ensure_compile_time_eval():
            ts = make(*args, **kwargs)
        if not isinstance(ts, jax.core.Tracer) and not np.all(np.diff(ts) < 0):
            raise InputError(
                f"{make.__name__} needs times that decrease, and these numbers give "
                f"{np.array2string(np.asarray(ts), threshold=8)}; ask for fewer steps, or for "
                "ends that the schedule has and that are further apart."
            )
        return ts

    return checked


def _from_steps(schedule: Schedule, steps: np.ndarray, T: int, clean: bool = True) -> Array:
    """Times of decreasing step indices, with the clean time appended."""
    ts = jnp.asarray(schedule.t_max * (steps + 1) / T)
    return jnp.append(ts, clean_time(schedule)) if clean else ts


@grid_maker
def leading(schedule: Schedule, n: int, T: int = 1000) -> Grid:
    """Steps 0, T//n, 2 T//n, ...: the spacing of Song et al. 2021 (DDIM); never starts at T.

    Args:
      schedule: the noise schedule.
      n: number of steps, 1 to T.
      T: steps of the beta table.

    Returns:
      n + 1 decreasing times, the last clean.
    """
    check_steps(n, T)
    return _from_steps(schedule, np.arange(n)[::-1] * (T // n), T)


@grid_maker
def trailing(schedule: Schedule, n: int, T: int = 1000) -> Grid:
    """Steps T - 1, T - 1 - T/n, ...: starts at full noise (Lin et al. 2024, Table 2).

    Arguments and result as for `leading`.
    """
    check_steps(n, T)
    return _from_steps(schedule, np.round(T * (1 - np.arange(n) / n)) - 1, T)


@grid_maker
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
    check_steps(n, T - 1)
    return _from_steps(schedule, np.round(np.linspace(T - 1, 0, n + 1)), T, clean=False)


@grid_maker
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


def _whole(text: str) -> int:
    """The whole number that a text says, or an InputError."""
    if not text.strip().isdecimal():
        raise InputError(f'sections are whole numbers, such as "10,15,20"; got {text!r}.')
    return int(text)


def space_timesteps(sections: str | Sequence[int], T: int = 1000) -> np.ndarray:
    """The step indices, increasing, that `respaced` keeps.

    Raises:
      InputError: a section is shorter than its count, or no integer stride fits.
    """
    if isinstance(sections, str) and sections.startswith("ddim"):
        wanted = _whole(sections.removeprefix("ddim"))
        for stride in range(1, T):
            if len(range(0, T, stride)) == wanted:
                return np.arange(0, T, stride)
        raise InputError(f"no integer stride gives {wanted} of {T} steps; try another number.")
    if isinstance(sections, str):
        sections = [_whole(count) for count in sections.split(",")]
    if not 1 <= len(sections) <= T:
        raise InputError(f"a grid of {T} steps has 1 to {T} sections; got {len(sections)}.")
    kept = []
    for part, count in zip(np.array_split(np.arange(T), len(sections)), sections, strict=True):
        check_steps(count)
        if count > len(part):
            raise InputError(
                f"a section of {len(part)} steps cannot keep {count}; ask for 1 to {len(part)}."
            )
        stride = (len(part) - 1) / max(count - 1, 1)
        kept.append(part[0] + np.round(stride * np.arange(count)).astype(int))
    return np.concatenate(kept)
