"""The times of diffusers' schedulers: step spacings, noise levels, and shifts."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.grids.steps import check_steps
from diffjax.pretrained.scheduler import BETWEEN, check_levels
from diffjax.pretrained.scheduler_settings import FILE, one_of, within
from diffjax.schedules import clean_time
from diffjax.types import Array, Schedule

LAST_SHORT = ("DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler")
"""Schedulers that space n + 1 steps and leave out the last, where the others space n."""

WHOLE = (*LAST_SHORT, "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "CogVideoXDDIMScheduler")
"""Schedulers that round evenly spaced steps; the others give the network fractions."""

Make = Callable[..., Array]


def steps_of(s: dict[str, Any], n: int) -> np.ndarray:
    """The steps of the beta table, decreasing, that diffusers' three spacings give.

    Args:
      s: the scheduler's settings.
      n: number of steps.
    """
    T, more = s["num_train_timesteps"], s["_class_name"] in LAST_SHORT
    check_steps(n, T - more)
    rounded = np.round if s["_class_name"] in WHOLE else np.asarray
    if s["timestep_spacing"] == "linspace":
        return rounded(np.linspace(0, T - 1, n + more))[::-1][:n]
    if s["timestep_spacing"] == "leading":
        steps = np.arange(n + more) * (T // (n + more)) + s["steps_offset"]
        return steps[::-1][:n].astype(float)
    return np.round(np.arange(T, 0, -T / n))[:n] - 1


def beta_grid(s: dict[str, Any]) -> Make:
    """The grid of a scheduler of betas: spaced steps, or noise levels between two of them.

    It ends at clean data, or at the first step where `set_alpha_to_one` is false or
    `final_sigmas_type` is "sigma_min"; a last step that would not move is left out.

    Raises:
      InputError: a spacing or an interpolation that is not built here, or two kinds of levels.
    """
    T = s["num_train_timesteps"]
    one_of(s, timestep_spacing=("linspace", "leading", "trailing"))
    one_of(s, interpolation_type=("linear",), timestep_type=("discrete", "continuous"))
    within(s, "steps_offset", 0, max(T - 1, 0))
    between = [name for name in BETWEEN if s.get(f"use_{name}")]
    if len(between) > 1:
        raise InputError(f"{FILE}: expected one of use_{', use_'.join(between)}; got several.")
    kind = between[0] if between else None
    first = not s.get("set_alpha_to_one", True) or s.get("final_sigmas_type") == "sigma_min"

    def grid(schedule: Schedule, n: int) -> Array:
        ends, levels = ends_of(schedule, s, n), LEVELS.get(kind)
        if levels is None and schedule.t_max == 1:
            ts = (np.minimum(steps_of(s, n), T - 1) + 1) / T
            return end_at(schedule, jnp.asarray(ts), first)
        levels = levels or table_levels(schedule, s)
        return end_at(schedule, schedule.t_from_logsnr(-2 * jnp.log(levels(*ends, n))), first)

    return grid


def end_at(schedule: Schedule, ts: Array, first: bool) -> Array:
    """Times with their end: clean, or the first of the schedule's own."""
    last = jnp.asarray(schedule.t_min if first else clean_time(schedule), ts.dtype)
    ts = jnp.minimum(ts, schedule.t_max)
    if first and ts[-1] <= last * (1 + 1e-5):
        ts = ts[:-1]
    if not len(ts):
        raise InputError(f"{FILE}: one step at its spacing is at the end already; ask for more.")
    return jnp.append(ts, last)


def ends_of(schedule: Schedule, s: dict[str, Any], n: int) -> tuple[Any, Any]:
    """Lowest and highest sigma/alpha of a grid: the file's, or else the spaced steps' own."""
    ts = jnp.asarray([schedule.t_min, schedule.t_max])
    whole_table = s["_class_name"] in LAST_SHORT or schedule.t_max != 1
    if not whole_table:
        steps = steps_of(s, n)
        ts = jnp.asarray(np.minimum(steps[[-1, 0]], s["num_train_timesteps"] - 1) + 1)
        ts = ts / s["num_train_timesteps"]
    low, high = schedule.sigma(ts) / schedule.alpha(ts)
    return s.get("sigma_min") or low, s.get("sigma_max") or high


def karras_levels(low: Any, high: Any, n: int, rho: Any = 7.0) -> Array:
    """sigma^(1/rho) even: Karras et al. 2022, Eq. 5."""
    ramp = jnp.linspace(0, 1, n)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def exponential_levels(low: Any, high: Any, n: int) -> Array:
    """log sigma even."""
    return jnp.exp(jnp.linspace(jnp.log(high), jnp.log(low), n))


def beta_levels(low: Any, high: Any, n: int) -> Array:
    """sigma at the quantiles of Beta(0.6, 0.6): Lee et al. 2024, in the noise level."""
    from scipy import stats

    return low + jnp.asarray(stats.beta.ppf(1 - np.linspace(0, 1, n), 0.6, 0.6)) * (high - low)


LEVELS = {
    "karras_sigmas": karras_levels,
    "exponential_sigmas": exponential_levels,
    "lu_lambdas": exponential_levels,
    "beta_sigmas": beta_levels,
}


def table_levels(schedule: Schedule, s: dict[str, Any]) -> Make:
    """The noise levels of spaced steps, for a schedule whose time is the noise level."""
    from diffjax.pretrained.scheduler import betas_of

    alpha_bar = np.cumprod(1 - betas_of(s))
    table = np.sqrt((1 - alpha_bar) / alpha_bar)
    return lambda low, high, n: jnp.asarray(np.interp(steps_of(s, n), np.arange(len(table)), table))


def level_grid(s: dict[str, Any]) -> Make:
    """The grid of EDM's schedulers: Karras et al. 2022, Eq. 5, or even in log sigma."""
    one_of(s, sigma_schedule=("karras", "exponential"))
    check_levels(s["sigma_min"], s["sigma_max"])
    within(s, "rho", 1e-3, 1e3)
    first = s["final_sigmas_type"] == "sigma_min"

    def grid(schedule: Schedule, n: int) -> Array:
        check_steps(n)
        ends = s["sigma_min"], s["sigma_max"]
        karras = s["sigma_schedule"] == "karras"
        levels = karras_levels(*ends, n, s["rho"]) if karras else exponential_levels(*ends, n)
        return end_at(schedule, levels, first)

    return grid


def shift(t: Any, by: Any) -> Any:
    """by t / (1 + (by - 1) t): Esser et al. 2024, Eq. 23."""
    return by * t / (1 + (by - 1) * t)


def flow_grid(s: dict[str, Any]) -> Make:
    """The grid of flow matching: even times, shifted, then clean.

    Under use_dynamic_shifting log of the shift is linear in the number of an image's tokens
    (`tokens`, by default those of the largest image), as FLUX has it.
    """
    one_of(s, invert_sigmas=(False,), stochastic_sampling=(False,))
    one_of(s, time_shift_type=("exponential", "linear"), **{f"use_{k}": (False,) for k in BETWEEN})
    for name in ("shift", "flow_shift"):
        within(s, name, 1e-3, 1e3)
    for name in ("base_shift", "max_shift"):
        within(s, name, -10, 10)
    within(s, "num_train_timesteps", 1, 1_000_000)
    within(s, "shift_terminal", 0, 0.999)
    T, dynamic = s["num_train_timesteps"], s["use_dynamic_shifting"]
    if dynamic and s.get("max_image_seq_len") == s.get("base_image_seq_len"):
        raise InputError(f"{FILE}: expected max_image_seq_len above base_image_seq_len.")
    by = s.get("shift", s.get("flow_shift", 1.0))

    def grid(schedule: Schedule, n: int, tokens: int | None = None) -> Array:
        check_steps(n)
        if "flow_shift" in s:
            t = shift(np.linspace(1 - 1 / T, 0, n + 1)[:-1], by)
        elif dynamic:
            t = dynamic_shift(s, np.linspace(1, 1 / n, n), tokens or s["max_image_seq_len"])
        else:
            t = shift(np.linspace(1, shift(1 / T, by), n), by)
        if s.get("shift_terminal"):
            t = 1 - (1 - t) * (1 - s["shift_terminal"]) / (1 - t[-1])
        return jnp.append(jnp.asarray(t, float), 0.0)

    return grid


def dynamic_shift(s: dict[str, Any], t: np.ndarray, tokens: int) -> np.ndarray:
    """Times shifted by exp(mu), or by mu, for mu linear in the number of tokens."""
    slope = (s["max_shift"] - s["base_shift"]) / (s["max_image_seq_len"] - s["base_image_seq_len"])
    mu = s["base_shift"] + slope * (tokens - s["base_image_seq_len"])
    by = np.exp(mu) if s["time_shift_type"] == "exponential" else mu
    return by / (by + 1 / t - 1)


def unclip_grid(s: dict[str, Any]) -> Make:
    """n steps from the last of the table to the first, evenly: the grid of unCLIP."""
    T = s["num_train_timesteps"]

    def grid(schedule: Schedule, n: int) -> Array:
        check_steps(n, T)
        if n < 2:
            raise InputError(f"{FILE}: an UnCLIPScheduler takes 2 steps or more; got {n}.")
        steps = np.round(np.arange(n) * ((T - 1) / (n - 1)))[::-1]
        return end_at(schedule, jnp.asarray((steps + 1) / T), False)

    return grid


def lcm_grid(s: dict[str, Any]) -> Make:
    """n of the steps that a latent consistency model was distilled on: Luo et al. 2023."""
    T, kept = s["num_train_timesteps"], s["original_inference_steps"]
    within(s, "original_inference_steps", 1, T)

    def grid(schedule: Schedule, n: int) -> Array:
        check_steps(n, kept)
        steps = (np.arange(1, kept + 1) * (T // kept) - 1)[::-1]
        steps = steps[np.floor(np.linspace(0, kept, n, endpoint=False)).astype(int)]
        return end_at(schedule, jnp.asarray((steps + 1.0) / T), False)

    return grid


def consistency_levels(s: dict[str, Any], steps: np.ndarray) -> Array:
    """Noise levels of rising steps of a consistency model's own grid, then its lowest.

    Args:
      s: the scheduler's settings.
      steps: from 0, the highest level, to num_train_timesteps - 1.
    """
    ramp = np.asarray(steps) / max(s["num_train_timesteps"] - 1, 1)
    low, high = (s[name] ** (1 / s["rho"]) for name in ("sigma_min", "sigma_max"))
    levels = (high + ramp * (low - high)) ** s["rho"]
    return jnp.append(jnp.asarray(levels), s["sigma_min"])


def consistency_grid(s: dict[str, Any]) -> Make:
    """n of the levels of Karras et al. 2022, Eq. 5, evenly: the grid of consistency models."""
    within(s, "rho", 1e-3, 1e3)
    within(s, "num_train_timesteps", 1, 1_000_000)
    one_of(s, s_noise=(1.0,))

    def grid(schedule: Schedule, n: int) -> Array:
        check_steps(n, s["num_train_timesteps"])
        return consistency_levels(s, np.arange(n) * (s["num_train_timesteps"] // n))

    return grid
