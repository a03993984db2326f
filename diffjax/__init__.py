"""diffjax: diffusion models in JAX and Flax, one pure function per equation."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffjax import diffusion, grids, guidance, losses, samplers, schedules, weighting
    from diffjax.diffusion import prior_sample
    from diffjax.parameterization import (
        at_steps,
        edm_preconditioning,
        make_denoiser,
        predict_eps,
        predict_score,
        predict_v,
        predict_velocity,
        predict_x0,
    )
    from diffjax.samplers import encode, sample, sample_path, sample_truncated

__version__ = "0.1.0"

_HOME = {
    "prior_sample": "diffusion",
    "at_steps": "parameterization",
    "edm_preconditioning": "parameterization",
    "make_denoiser": "parameterization",
    "predict_eps": "parameterization",
    "predict_score": "parameterization",
    "predict_v": "parameterization",
    "predict_velocity": "parameterization",
    "predict_x0": "parameterization",
    "encode": "samplers",
    "sample": "samplers",
    "sample_path": "samplers",
    "sample_truncated": "samplers",
}
_MODULES = ("diffusion", "grids", "guidance", "losses", "samplers", "schedules", "weighting")

__all__ = [
    "at_steps",
    "diffusion",
    "edm_preconditioning",
    "encode",
    "grids",
    "guidance",
    "losses",
    "make_denoiser",
    "predict_eps",
    "predict_score",
    "predict_v",
    "predict_velocity",
    "predict_x0",
    "prior_sample",
    "sample",
    "sample_path",
    "sample_truncated",
    "samplers",
    "schedules",
    "weighting",
]


def __getattr__(name):
    """Import what is asked for when it is: JAX alone takes a second to import (PEP 562)."""
    if name in _MODULES:
        return import_module(f"diffjax.{name}")
    if name in _HOME:
        return getattr(import_module(f"diffjax.{_HOME[name]}"), name)
    raise AttributeError(f"module 'diffjax' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
