"""What a constructor asks of its arguments; traced values are taken as they are."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.types import Array, Cond, Denoiser, Grid, Sampler, Schedule


def at_least(name: str, value: Any, least: float = 0.0) -> None:
    """Raise an InputError where a known value is below `least`."""
    if not isinstance(value, jax.core.Tracer) and not value >= least:
        raise InputError(f"{name} must be at least {least:g}; got {value}.")


def count(name: str, value: Any, least: int = 1) -> None:
    """Raise an InputError unless the value, which sets a shape, is an int of at least `least`."""
    if not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}; got {value!r}.")


def choose(name: str, value: str, options: Mapping[str, Any]) -> Any:
    """The option of that name, or an InputError that lists them."""
    if value not in options:
        raise InputError(f"{name} must be one of {', '.join(options)}; got {value!r}.")
    return options[value]


def check_grid(ts: Array | np.ndarray) -> None:
    """A grid must be known to be decreasing; a traced one was checked by its maker."""
    if ts.ndim != 1 or ts.shape[0] < 2:
        raise InputError(
            f"a grid needs n + 1 decreasing times for n >= 1 steps; got shape {ts.shape}. "
            "Make one with diffjax.grids, e.g. grids.trailing(schedule, 50)."
        )
    if not isinstance(ts, jax.core.Tracer) and not np.all(np.diff(ts) < 0):
        raise InputError(
            f"a grid needs decreasing times; got {np.array2string(np.asarray(ts), threshold=8)}. "
            "Flip or sort it; encode() is the loop that goes from data to noise."
        )


def check_start(denoiser: Denoiser, x: Array, ts: Grid | np.ndarray, cond: Cond) -> None:
    """Ask about x at a known first time, without computing: the denoiser may refuse it."""
    if not isinstance(ts, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            first = jnp.asarray(ts)[0]
        jax.eval_shape(lambda x, cond: denoiser(x, first, cond), x, cond)


SamplerOf = Sampler | Callable[..., Sampler]
"""A sampler, or a constructor of one that can be called with the schedule alone."""


def as_sampler(schedule: Schedule, sampler: SamplerOf) -> Sampler:
    """The sampler itself, or what its constructor makes of the schedule."""
    return sampler(schedule) if callable(sampler) else sampler
