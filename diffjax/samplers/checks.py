"""What constructors and loops ask of their arguments; traced values are taken as they are."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.schedules import clean_time
from diffjax.types import Array, BoundDenoiser, Cond, Denoiser, Grid, Sampler, Schedule

ROUNDING = 1e-5  # relative; times beyond t_max by less are t_max


def known(*values: Any) -> bool:
    """Whether none of the values is traced."""
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def is_zero(value: Any) -> bool:
    """Whether a number is known to be 0."""
    return known(value) and bool(value == 0)


def speak(good: Array, message: str) -> None:
    """What only the numbers tell: an InputError where they are known, else a warning when run."""
    if known(good):
        if not good:
            raise InputError(message)
    else:
        warn_unless(good, message)


def warn_unless(good: Array, message: str) -> None:
    """Warn of what only the numbers tell, when it is run."""

    def warn(good):
        if not good:
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    jax.debug.callback(warn, good)


def at_least(name: str, value: Any, least: float = 0.0) -> None:
    """Raise an InputError where a known value is below `least`, infinite or no number."""
    if known(value) and not least <= value < np.inf:
        raise InputError(f"{name} must be at least {least:g} and finite; got {value}.")


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


def check_noise(noise: Array | None, sampler: Sampler, x: Array, ts: Array) -> None:
    """Refuse given noise that is not one array of x's shape for each draw of each step."""
    wanted = (ts.shape[0] - 1, sampler.draws, *x.shape)
    if noise is not None and noise.shape != wanted:
        raise InputError(
            f"noise must be (steps, draws of the sampler, *x.shape) = {wanted}; got {noise.shape}."
        )


def check_times(schedule: Schedule, ts: Array) -> None:
    """Refuse a known grid beyond the schedule, or one that goes up from clean data."""
    if not known(ts):
        return
    first, last = (float(t) for t in np.asarray(ts)[[0, -1]])
    with jax.ensure_compile_time_eval():
        clean = clean_time(schedule)
    if known(schedule.t_max) and max(first, last) > schedule.t_max * (1 + ROUNDING):
        raise InputError(
            f"times must be at most the schedule's t_max = {schedule.t_max:g}; got "
            f"{max(first, last):g}. Step k of a table of T betas is the time (k + 1)/T; "
            "diffjax.grids makes grids."
        )
    if not known(clean):
        return
    if min(first, last) < float(clean):
        raise InputError(
            f"times must be at least the clean time {float(clean):g}; got {min(first, last):g}."
        )
    if first < last and first == float(clean):
        raise InputError(
            "encode needs a grid that ends above clean data, where there is no noise to follow; "
            "drop its end, as in grids.karras(schedule, n)[:-1]."
        )


def working(x: Any) -> Array:
    """x in JAX's default precision, in which samplers run; InputError unless it is real."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"samples must be real numbers, as from prior_sample; got {x.dtype}. Scale images of "
            "bytes to [-1, 1] first, as in x / 127.5 - 1."
        )
    return x.astype(float)


def working_grid(ts: Any) -> Array:
    """The grid in JAX's default precision; a known one stays known while others are traced."""
    with jax.ensure_compile_time_eval():
        return jnp.asarray(ts, float)


def distinct(ts: Grid) -> Array:
    """The distinct times in front, and the last of them again in the place of each repetition."""
    new = jnp.append(True, ts[1:] != ts[:-1])
    place = jnp.where(new, jnp.cumsum(new) - 1, ts.shape[0])
    return jnp.full_like(ts, ts[-1]).at[place].set(ts, mode="drop")


def bind(denoiser: Denoiser, cond: Cond) -> BoundDenoiser:
    """(x, t) -> Prediction under one condition, in x's precision whatever the network's."""

    def denoise(x, t):
        return jax.tree.map(lambda leaf: leaf.astype(x.dtype), denoiser(x, t, cond))

    return denoise


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
