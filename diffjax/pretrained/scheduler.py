"""The schedule and the prediction that diffusers' scheduler_config.json describes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffjax import schedules
from diffjax.errors import InputError, sentence
from diffjax.parameterization import (
    at_steps,
    edm_preconditioning,
    predict_eps,
    predict_v,
    predict_velocity,
    predict_x0,
)
from diffjax.pretrained.scheduler_settings import BETAS, FILE, one_of, settings_of, within
from diffjax.types import Array, BetaTable, Coefficients, Parameterization, Schedule

KEY = "_scheduler"
"""Where a network's own configuration keeps its scheduler's."""

TABLES = {
    "linear": schedules.linear_betas,
    "scaled_linear": schedules.scaled_linear_betas,
    "sigmoid": schedules.sigmoid_betas,
    "squaredcos_cap_v2": lambda T, start, end: schedules.cosine_betas(T),
}
PREDICTIONS = {"epsilon": predict_eps, "sample": predict_x0, "v_prediction": predict_v}
ROUNDING = ("DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler")
"""Schedulers that give the network whole steps where their noise levels lie between steps."""

ALMOST_ZERO = (*ROUNDING[:1], "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
"""Schedulers whose zero SNR is 2^-24, so that sigma/alpha is finite."""

CONSISTENCY = "CMStochasticIterativeScheduler"
UNCLIP = "UnCLIPScheduler"

Noise = tuple[Schedule, Parameterization]


def read_scheduler(folder: Path) -> dict[str, Any] | None:
    """The scheduler's configuration of a network's folder, or of the pipeline it is in.

    Args:
      folder: of the network.

    Returns:
      The first of scheduler_config.json, scheduler/..., ../scheduler/...; None without one.

    Raises:
      InputError: the file is not JSON of one object.
    """
    for place in (folder, folder / "scheduler", folder.resolve().parent / "scheduler"):
        path = place / FILE
        if path.is_file():
            try:
                config = json.loads(path.read_text())
            except ValueError as error:
                raise InputError(f"{path} is not JSON: {sentence(error)}") from error
            if not isinstance(config, dict):
                raise InputError(f"{path}: expected an object of names and values.")
            return config
    return None


def steps_of_linear_betas() -> Noise:
    """What published networks without a scheduler were trained with: eps on DDPM's betas."""
    return schedules.from_betas(schedules.linear_betas(1000)), at_steps(predict_eps)


def flow(schedule: Schedule, t: Array) -> Coefficients:
    """The velocity of the straight line, by a network that is given x_t as it is and 1000 t."""
    return predict_velocity(schedule, t)._replace(c_in=jnp.ones_like(t), c_noise=1000 * t)


def straight_line() -> Noise:
    """What published networks of flow matching were trained with."""
    return schedules.rectified_flow(), flow


def noise_of(
    config: dict[str, Any],
    usual: Callable[[], Noise] = steps_of_linear_betas,
    line: Callable[[], Noise] = straight_line,
) -> Noise:
    """The schedule and parameterization that a network was trained with.

    Args:
      config: of the network, which may hold its scheduler's.
      usual: those of its family, where no scheduler says them.
      line: those of its family under flow matching.

    Returns:
      A schedule, and a parameterization whose c_noise is the time that the network is given: the
      step of a beta table, 1000 t of a straight line, or log(sigma)/4.

    Raises:
      InputError: a scheduler, a setting or a value that is not built here.
    """
    if not config.get(KEY):
        return usual()
    s = settings_of(config[KEY])
    if is_flow(s):
        schedule, parameterization = line()
        whole = s["_class_name"] in ROUNDING
        return schedule, whole_steps(parameterization, jnp.floor) if whole else parameterization
    if s["_class_name"].startswith("EDM"):
        return _edm(s)
    if s["_class_name"] == CONSISTENCY:
        return _consistency(s)
    one_of(s, prediction_type=tuple(PREDICTIONS))
    if s["_class_name"] == UNCLIP:
        one_of(s, beta_schedule=("squaredcos_cap_v2",), prediction_type=("epsilon", "sample"))
    schedule = schedules.from_betas(betas_of(s))
    predict = PREDICTIONS[s["prediction_type"]]
    if s.get("timestep_type") == "continuous" and predict is predict_v:
        return continuous(schedule, s), v_at_log_sigma
    parameterization = at_steps(predict, s["num_train_timesteps"])
    between = any(s.get(f"use_{name}") for name in BETWEEN)
    if between and s["_class_name"] in ROUNDING:
        parameterization = whole_steps(parameterization, jnp.round)
    return schedule, parameterization


def own_noise(config: dict[str, Any], where: str) -> None:
    """Refuse a scheduler's file beside a network whose noise is in its own configuration.

    Raises:
      InputError: there is one.
    """
    if config.get(KEY):
        raise InputError(
            f"{FILE}: {where} has its noise levels in its own config.json; take the file away."
        )


BETWEEN = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")


def is_flow(s: dict[str, Any]) -> bool:
    """Whether a scheduler's settings are those of flow matching.

    Raises:
      InputError: it predicts a flow on betas, or something else on a straight line.
    """
    if s["_class_name"].startswith("FlowMatch"):
        return True
    if s.get("use_flow_sigmas"):
        one_of(s, prediction_type=("flow_prediction",))
    return bool(s.get("use_flow_sigmas"))


def whole_steps(parameterization: Parameterization, cut: Callable) -> Parameterization:
    """The same, for a network that is given a whole step: `cut` of the time."""

    def coefficients(schedule, t):
        c = parameterization(schedule, t)
        return c._replace(c_noise=cut(c.c_noise))

    return coefficients


def v_at_log_sigma(schedule: Schedule, t: Array) -> Coefficients:
    """v, by a network that is given log(sigma/alpha)/4: Stable Video Diffusion's."""
    ratio = schedule.sigma(t) / schedule.alpha(t)
    return predict_v(schedule, t)._replace(c_noise=jnp.log(ratio) / 4)


def continuous(schedule: Schedule, s: dict[str, Any]) -> Schedule:
    """Noise levels as times, between those of the file or else those of the beta table."""
    ends = [float(schedule.sigma(t) / schedule.alpha(t)) for t in (schedule.t_min, schedule.t_max)]
    low = ends[0] if s["sigma_min"] is None else s["sigma_min"]
    high = ends[1] if s["sigma_max"] is None else s["sigma_max"]
    check_levels(low, high)
    return schedules.edm(float(low), float(high))


def check_levels(low: Any, high: Any) -> None:
    """Refuse noise levels that do not rise from above 0.

    Raises:
      InputError: names them.
    """
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high))
    if not numbers or not 0 < low < high < float("inf"):
        raise InputError(f"{FILE}: expected 0 < sigma_min < sigma_max; got {low!r} and {high!r}.")


def _edm(s: dict[str, Any]) -> Noise:
    """Karras et al. 2022's preconditioning; "v_prediction" is the network's output negated."""
    one_of(s, prediction_type=("epsilon", "v_prediction"))
    check_levels(s["sigma_min"], s["sigma_max"])
    within(s, "sigma_data", 1e-6, 1e6)
    preconditioning = edm_preconditioning(float(s["sigma_data"]))

    def negated(schedule, t):
        c = preconditioning(schedule, t)
        return c._replace(c_out=-c.c_out)

    negative = s["prediction_type"] == "v_prediction"
    schedule = schedules.edm(float(s["sigma_min"]), float(s["sigma_max"]))
    return schedule, negated if negative else preconditioning


def _consistency(s: dict[str, Any]) -> Noise:
    """Song et al. 2023, appendix C: x0_hat is x_t at sigma_min; the time is 250 log(sigma)."""
    check_levels(s["sigma_min"], s["sigma_max"])
    within(s, "sigma_data", 1e-6, 1e6)
    low, data = float(s["sigma_min"]), float(s["sigma_data"])

    def coefficients(schedule, t):
        sigma = schedule.sigma(t)
        root = jnp.sqrt(sigma**2 + data**2)
        c_skip = data**2 / ((sigma - low) ** 2 + data**2)
        return Coefficients(c_skip, data * (sigma - low) / root, 1 / root, 250 * jnp.log(sigma))

    return schedules.edm(low, float(s["sigma_max"])), coefficients


def betas_of(s: dict[str, Any]) -> BetaTable:
    """The beta table of a scheduler's settings, over `BETAS`' defaults.

    Raises:
      InputError: its name is not known, or its numbers are no betas.
    """
    s = BETAS | {"_class_name": "a scheduler"} | s
    within(s, "num_train_timesteps", 1, 1_000_000)
    for name in ("beta_start", "beta_end"):
        within(s, name, 0, 1)
    within(s, "snr_shift_scale", 1e-6, 1e6)
    if s["trained_betas"] is not None:
        betas = _trained(s["trained_betas"], s["num_train_timesteps"])
    else:
        one_of(s, beta_schedule=tuple(TABLES))
        T = s["num_train_timesteps"]
        # Our tables scale their ends by 1000/T, theirs do not.
        scaled = s["beta_start"] * T / 1000, s["beta_end"] * T / 1000
        betas = TABLES[s["beta_schedule"]](T, *scaled)
    if "snr_shift_scale" in s:
        betas = shift_snr(betas, s["snr_shift_scale"])
    if not s["rescale_betas_zero_snr"]:
        return betas
    betas = schedules.rescale_zero_terminal_snr(betas)
    if s["_class_name"] in ALMOST_ZERO:
        betas[-1] = 1 - 2.0**-24 / np.prod(1 - betas[:-1])
    return betas


def _trained(values: Any, T: int) -> BetaTable:
    try:
        betas = np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{FILE}: expected trained_betas to be a list of numbers.") from error
    if betas.shape != (T,):
        raise InputError(
            f"{FILE}: expected trained_betas of num_train_timesteps = {T} numbers; got shape "
            f"{betas.shape}."
        )
    return betas


def shift_snr(betas: BetaTable, scale: Any) -> BetaTable:
    """The table whose SNR is divided by `scale` at every step: CogVideoX (Yang et al. 2024).

    alpha_bar' = alpha_bar / (scale + (1 - scale) alpha_bar).
    """
    alpha_bar = np.cumprod(1 - np.asarray(betas, np.float64))
    alpha_bar = alpha_bar / (scale + (1 - scale) * alpha_bar)
    return 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])
