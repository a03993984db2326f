"""How a published model is sampled where nothing else is asked for: its scheduler_config.json."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp

from diffjax import grids, samplers
from diffjax.guidance import static_clip
from diffjax.pretrained.scheduler import CONSISTENCY, KEY, UNCLIP, is_flow
from diffjax.pretrained.scheduler_grids import (
    beta_grid,
    consistency_grid,
    flow_grid,
    lcm_grid,
    level_grid,
    unclip_grid,
)
from diffjax.pretrained.scheduler_samplers import (
    boundary,
    ddim_of,
    multistep,
    renoise,
    threshold,
)
from diffjax.pretrained.scheduler_settings import one_of, settings_of, within
from diffjax.types import Array, Denoiser, Sampler, Schedule

IN_LEVELS = (
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("LMSDiscreteScheduler", "KDPM2DiscreteScheduler"),
)
"""Schedulers of x_t / alpha, which begin with the noise alone unless their spacing is leading."""


def as_it_is(denoiser: Denoiser) -> Denoiser:
    """The denoiser itself, where nothing is clipped."""
    return denoiser


def noise_alone(schedule: Schedule, t: Array) -> Array:
    """sigma(t): sampling begins with the noise of x_t and no signal."""
    return schedule.sigma(t)


def noise_and_signal(schedule: Schedule, t: Array) -> Array:
    """sqrt(alpha^2 + sigma^2), the standard deviation of x_t for data of unit variance."""
    return jnp.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)


def unit_noise(schedule: Schedule, t: Array) -> Array:
    """1 at any time."""
    return jnp.ones_like(t)


class SchedulerDefaults(NamedTuple):
    """A scheduler of diffusers as what diffjax samples with.

    Attributes:
      sampler: a constructor of `diffjax.samplers`, (schedule, **options) -> Sampler.
      grid: (schedule, n) -> decreasing times; with `tokens=` too where the shift depends on how
        many tokens an image has.
      steps: number of steps where none is asked for.
      options: keywords of the constructor.
      finish: applied to the denoiser after guidance: clipping, thresholding.
      start_std: (schedule, first time) -> standard deviation of the noise that sampling begins
        with; sigma, but 1 or sqrt(alpha^2 + sigma^2) where diffusers has that.
    """

    sampler: Callable[..., Sampler] = samplers.dpmpp_2m
    grid: Callable[..., Array] = grids.karras
    steps: int = 25
    options: Mapping[str, Any] = MappingProxyType({})
    finish: Callable[[Denoiser], Denoiser] = as_it_is
    start_std: Callable[[Schedule, Array], Array] = noise_alone


def sampling_of(config: dict[str, Any]) -> SchedulerDefaults:
    """The sampling defaults of a network's scheduler; the usual ones where it has none.

    The clipping of a DDIMScheduler is its sampler's, which takes eps_hat from what the network
    says, and is not there for another sampler; that of the others is a `finish`.

    Args:
      config: of the network, which may hold its scheduler's.

    Raises:
      InputError: a scheduler, a setting or a value that is not built here.
    """
    if not config.get(KEY):
        return SchedulerDefaults()
    s = settings_of(config[KEY])
    one_of(s, final_sigmas_type=("zero", "sigma_min"))
    if is_flow(s) and s["_class_name"].startswith("FlowMatch"):
        return SchedulerDefaults(samplers.euler, flow_grid(s), 28, start_std=unit_noise)
    if s["_class_name"] == CONSISTENCY:
        finish = partial(static_clip, bound=1.0) if s["clip_denoised"] else as_it_is
        options = {"floor": float(s["sigma_min"])}
        return SchedulerDefaults(renoise, consistency_grid(s), 1, options, finish)
    defaults = SAMPLERS[s["_class_name"]](s)
    if s["_class_name"] == "DDIMScheduler":
        return defaults._replace(grid=_grid_of(s), start_std=_start_of(s))
    return defaults._replace(grid=_grid_of(s), finish=_finish_of(s), start_std=_start_of(s))


def _start_of(s: dict[str, Any]) -> Callable[[Schedule, Array], Array]:
    """Diffusers' init_noise_sigma, for x_t and not x_t / alpha."""
    if is_flow(s):
        return unit_noise
    in_levels = s["_class_name"] in IN_LEVELS
    return noise_alone if in_levels and s["timestep_spacing"] != "leading" else noise_and_signal


def _grid_of(s: dict[str, Any]) -> Callable[..., Array]:
    if s["_class_name"] == "LCMScheduler":
        return lcm_grid(s)
    if s["_class_name"] == UNCLIP:
        return unclip_grid(s)
    if is_flow(s):
        return flow_grid(s)
    return level_grid(s) if s["_class_name"].startswith("EDM") else beta_grid(s)


def _finish_of(s: dict[str, Any]) -> Callable[[Denoiser], Denoiser]:
    """Thresholding, clipping or neither, and what LCM mixes in."""
    within(s, "dynamic_thresholding_ratio", 1e-6, 1)
    within(s, "sample_max_value", 1, 1e6)
    within(s, "clip_sample_range", 1e-6, 1e6)
    if s.get("thresholding"):
        most, ratio = s["sample_max_value"], s["dynamic_thresholding_ratio"]
        return partial(threshold, quantile=float(ratio), most=float(most))
    clip = s.get("clip_sample")
    finish = partial(static_clip, bound=float(s["clip_sample_range"])) if clip else as_it_is
    if s["_class_name"] != "LCMScheduler":
        return finish
    mix = partial(boundary, T=s["num_train_timesteps"], scaling=float(s["timestep_scaling"]))
    return lambda denoiser: mix(finish(denoiser))


# --- samplers ---------------------------------------------------------------------------


def _ddim(s):
    finish = _finish_of(s)
    return SchedulerDefaults(samplers.ddim if finish is as_it_is else ddim_of(finish), steps=50)


def _cogvideox(s):
    return SchedulerDefaults(samplers.ddim, steps=50)


def _ddpm(s):
    names = {"small": "small", "large": "large", "learned": "learned"}
    kinds = {f"fixed_{name}{log}": name for name in ("small", "large") for log in ("", "_log")}
    kinds |= {"learned_range": "learned"}
    one_of(s, variance_type=tuple(kinds))
    options = {"variance": names[kinds[s["variance_type"]]]}
    return SchedulerDefaults(samplers.ancestral, steps=s["num_train_timesteps"], options=options)


def _unclip(s):
    kinds = {"fixed_small_log": "small", "learned_range": "learned"}
    one_of(s, variance_type=tuple(kinds))
    options = {"variance": kinds[s["variance_type"]]}
    return SchedulerDefaults(samplers.ancestral, steps=25, options=options)


def _pndm(s):
    one_of(s, skip_prk_steps=(True,))
    return SchedulerDefaults(samplers.plms, steps=50)


def _plain(sampler, steps):
    return lambda s: SchedulerDefaults(sampler, steps=steps)


def _dpm(s):
    lowest = s.get("lambda_min_clipped", -float("inf"))
    one_of(s | {"lambda_min_clipped": lowest}, lambda_min_clipped=(-float("inf"),))
    one_of(s, algorithm_type=("dpmsolver++", "sde-dpmsolver++"), use_dynamic_shifting=(False,))
    one_of(s, variance_type=(None,))
    if s["algorithm_type"] == "sde-dpmsolver++":
        one_of(s, solver_order=(2,), solver_type=("midpoint", "heun"), euler_at_final=(False,))
        return SchedulerDefaults(samplers.dpmpp_2m_sde, options={"form": s["solver_type"]})
    one_of(s, solver_order=(1, 2, 3), solver_type=("midpoint",))
    return _multistep(s, samplers.dpmpp_multistep)


def _deis(s):
    one_of(s, algorithm_type=("deis",), solver_type=("logrho",), solver_order=(1, 2, 3))
    one_of(s, use_dynamic_shifting=(False,))
    return _multistep(s, samplers.deis)


def _multistep(s, family):
    """A sampler of the family whose last steps are of lower order where the file says so."""
    options = {
        "family": family,
        "order": s["solver_order"],
        "lower_order_final": s["lower_order_final"],
        "euler_at_final": s.get("euler_at_final", False),
    }
    if s["final_sigmas_type"] == "zero" and s["solver_order"] < 3:
        return SchedulerDefaults(family, options={"order": s["solver_order"]})
    return SchedulerDefaults(multistep, options=options)


def _unipc(s):
    one_of(s, solver_order=(1, 2, 3), solver_type=("bh1", "bh2"), predict_x0=(True,))
    one_of(s, lower_order_final=(True,), disable_corrector=((), []), solver_p=(None,))
    one_of(s, use_dynamic_shifting=(False,), shift_terminal=(None,))
    options = {"order": s["solver_order"], "variant": s["solver_type"]}
    return SchedulerDefaults(samplers.unipc, options=options)


def _lcm(s):
    return SchedulerDefaults(renoise, steps=4)


SAMPLERS: dict[str, Callable[[dict[str, Any]], SchedulerDefaults]] = {
    "DDIMScheduler": _ddim,
    "DDPMScheduler": _ddpm,
    "UnCLIPScheduler": _unclip,
    "CogVideoXDDIMScheduler": _cogvideox,
    "PNDMScheduler": _pndm,
    "LCMScheduler": _lcm,
    "EulerDiscreteScheduler": _plain(samplers.euler, 30),
    "EulerAncestralDiscreteScheduler": _plain(samplers.euler_ancestral, 30),
    "HeunDiscreteScheduler": _plain(samplers.heun, 20),
    "LMSDiscreteScheduler": _plain(samplers.lms, 30),
    "KDPM2DiscreteScheduler": _plain(samplers.dpm_2, 20),
    "DPMSolverMultistepScheduler": _dpm,
    "DEISMultistepScheduler": _deis,
    "UniPCMultistepScheduler": _unipc,
    "EDMEulerScheduler": _plain(samplers.euler, 30),
    "EDMDPMSolverMultistepScheduler": _dpm,
}
