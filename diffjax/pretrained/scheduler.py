"""The schedule and the prediction that diffusers' scheduler_config.json describes."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from diffjax import schedules
from diffjax.errors import InputError, sentence
from diffjax.parameterization import at_steps, predict_eps, predict_v, predict_x0
from diffjax.types import BetaTable, Parameterization, Schedule

FILE = "scheduler_config.json"
KEY = "_scheduler"
"""Where a network's own configuration keeps its scheduler's."""

DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
"""Those of DDPM, which published networks without a scheduler were trained with."""

BETAS = {
    "linear": schedules.linear_betas,
    "scaled_linear": schedules.scaled_linear_betas,
    "sigmoid": schedules.sigmoid_betas,
    "squaredcos_cap_v2": lambda T, start, end: schedules.cosine_betas(T),
}
PREDICTIONS = {"epsilon": predict_eps, "sample": predict_x0, "v_prediction": predict_v}


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


def noise_of(config: dict[str, Any]) -> tuple[Schedule, Parameterization]:
    """The schedule and parameterization that a network was trained with.

    Args:
      config: of the network, which may hold its scheduler's.

    Returns:
      A schedule of the beta table, and a parameterization whose c_noise is its step.

    Raises:
      InputError: the scheduler is of another kind, such as one of flow matching.
    """
    given = config.get(KEY) or {}
    kind = str(given.get("_class_name", ""))
    s = DEFAULTS | {name: value for name, value in given.items() if name in DEFAULTS}
    if (given and "beta_schedule" not in given) or s["prediction_type"] not in PREDICTIONS:
        raise InputError(
            f"{FILE}: {kind or 'a scheduler'} with prediction_type {s['prediction_type']!r} is "
            f"not supported; expected one of {', '.join(PREDICTIONS)} and a beta_schedule."
        )
    betas = betas_of(s)
    return schedules.from_betas(betas), at_steps(PREDICTIONS[s["prediction_type"]], len(betas))


def betas_of(s: dict[str, Any]) -> BetaTable:
    """The beta table of a scheduler's settings.

    Raises:
      InputError: its name is not known.
    """
    if s["trained_betas"] is not None:
        betas = np.asarray(s["trained_betas"], float)
    elif s["beta_schedule"] in BETAS:
        T = s["num_train_timesteps"]
        # Our tables scale their ends by 1000/T, theirs do not.
        betas = BETAS[s["beta_schedule"]](T, s["beta_start"] * T / 1000, s["beta_end"] * T / 1000)
    else:
        raise InputError(
            f"{FILE}: beta_schedule {s['beta_schedule']!r} is not supported; expected one of "
            f"{', '.join(BETAS)}."
        )
    return schedules.rescale_zero_terminal_snr(betas) if s["rescale_betas_zero_snr"] else betas
