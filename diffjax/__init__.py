"""diffjax: diffusion models in JAX and Flax, one pure function per equation."""

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
