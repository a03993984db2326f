"""Every setting of every scheduler of diffusers that is read here, with its default.

A setting of the scheduler's own class is used or refused. One of another class in this table has
no effect in diffusers either, and published files are full of them. One of no class is refused.
"""

from difflib import get_close_matches
from typing import Any

from diffjax.errors import InputError
from diffjax.pretrained.arguments import typed

FILE = "scheduler_config.json"

BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
DDIM = {
    **BETAS,
    **THRESHOLD,
    **CLIP,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "timestep_spacing": "leading",
}
SPACED = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
LINSPACE = {"timestep_spacing": "linspace", "steps_offset": 0}
EULER = {
    **BETAS,
    **SPACED,
    **LINSPACE,
    "interpolation_type": "linear",
    "sigma_min": None,
    "sigma_max": None,
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
}
MULTISTEP = {
    **BETAS,
    **THRESHOLD,
    **SPACED,
    **LINSPACE,
    "solver_order": 2,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
UNIPC = {
    **{name: value for name, value in MULTISTEP.items() if name != "algorithm_type"},
    "solver_type": "bh2",
    "predict_x0": True,
    "disable_corrector": (),
    "solver_p": None,
    "sigma_min": None,
    "sigma_max": None,
    "shift_terminal": None,
}
FLOW = {
    **SPACED,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": None,
    "time_shift_type": "exponential",
    "stochastic_sampling": False,
}
EDM = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}
CONSISTENCY = {
    "num_train_timesteps": 40,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "s_noise": 1.0,
    "rho": 7.0,
    "clip_denoised": True,
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "CMStochasticIterativeScheduler": CONSISTENCY,
    "DDIMScheduler": DDIM,
    "DDPMScheduler": DDIM | {"variance_type": "fixed_small"},
    "UnCLIPScheduler": CLIP
    | {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
    | {"prediction_type": "epsilon", "variance_type": "fixed_small_log"},
    "CogVideoXDDIMScheduler": DDIM
    | {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    | {"snr_shift_scale": 3.0},
    "PNDMScheduler": BETAS
    | {"skip_prk_steps": False, "set_alpha_to_one": False}
    | {"timestep_spacing": "leading", "steps_offset": 0},
    "LCMScheduler": DDIM
    | {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    | {"clip_sample": False, "original_inference_steps": 50, "timestep_scaling": 10.0},
    "EulerDiscreteScheduler": EULER,
    "EulerAncestralDiscreteScheduler": BETAS | LINSPACE,
    "HeunDiscreteScheduler": BETAS | SPACED | LINSPACE | CLIP | {"clip_sample": False},
    "LMSDiscreteScheduler": BETAS | SPACED | LINSPACE,
    "KDPM2DiscreteScheduler": BETAS | SPACED | LINSPACE,
    "DPMSolverMultistepScheduler": MULTISTEP,
    "DEISMultistepScheduler": {
        **{name: value for name, value in MULTISTEP.items() if name != "euler_at_final"},
        "algorithm_type": "deis",
        "solver_type": "logrho",
    },
    "UniPCMultistepScheduler": UNIPC,
    "FlowMatchEulerDiscreteScheduler": FLOW,
    "EDMEulerScheduler": EDM,
    "EDMDPMSolverMultistepScheduler": EDM
    | THRESHOLD
    | {"solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint"}
    | {"lower_order_final": True, "euler_at_final": False},
}
ALL = {name for settings in SCHEDULERS.values() for name in settings}


def settings_of(given: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's settings over the defaults of its class, `_class_name` among them.

    Args:
      given: the object of a scheduler_config.json.

    Raises:
      InputError: a class that is not known, a setting of no class, or a value of another type.
    """
    kind = given.get("_class_name")
    if not isinstance(kind, str) or kind not in SCHEDULERS:
        raise InputError(
            f"{FILE}: _class_name is {kind!r}; expected one of {', '.join(SCHEDULERS)}. Give the "
            "network another scheduler, or take the file away to use the usual defaults."
        )
    own = SCHEDULERS[kind]
    for name in given:
        if not name.startswith("_") and name not in ALL:
            close = get_close_matches(name, own, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(own)}."
            raise InputError(f"{FILE}: no scheduler has a setting {name!r}; {hint}")
    found = {name: given[name] for name in own if name in given}
    settings = own | {k: typed(k, value, own[k], FILE, one=True) for k, value in found.items()}
    return settings | {"_class_name": kind}


def one_of(settings: dict[str, Any], **values: tuple) -> None:
    """Refuse a value that is not built here, where the class has that setting.

    Raises:
      InputError: names the setting, its value and what is possible.
    """
    for name, possible in values.items():
        if name in settings and settings[name] not in possible:
            listed = ", ".join(repr(value) for value in possible)
            raise InputError(
                f"{FILE}: {settings['_class_name']} with {name} = {settings[name]!r} is not "
                f"supported; expected {listed}."
            )


def within(settings: dict[str, Any], name: str, low: Any, high: Any) -> None:
    """Refuse a number outside [low, high], where the class has that setting.

    Raises:
      InputError: names the setting, its value and the range.
    """
    value = settings.get(name)
    number = isinstance(value, int | float)
    if value is not None and not (number and low <= value <= high):
        raise InputError(
            f"{FILE}: expected {name} from {low:g} to {high:g}; got {value!r}. Correct the file."
        )
