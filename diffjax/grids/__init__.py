"""Time grids: n + 1 decreasing times for a sampler of n steps, all ending at clean data
except `linspace`, which ends where the multistep solvers of diffusers do.

Integer spacings of a beta table, grids spaced in the noise level for every schedule, and
`gits`, which searches one for a denoiser; `samplers.learn_grid` learns one by gradient.
"""

from diffjax.grids.noise import (
    STABLE_DIFFUSION_15,
    STABLE_DIFFUSION_XL,
    STABLE_VIDEO_DIFFUSION,
    align_your_steps,
    beta_quantiles,
    exponential,
    karras,
    polyexponential,
    uniform_logsnr,
    vp_uniform,
)
from diffjax.grids.search import gits
from diffjax.grids.steps import leading, linspace, respaced, space_timesteps, trailing

__all__ = [
    "STABLE_DIFFUSION_15",
    "STABLE_DIFFUSION_XL",
    "STABLE_VIDEO_DIFFUSION",
    "align_your_steps",
    "beta_quantiles",
    "exponential",
    "gits",
    "karras",
    "leading",
    "linspace",
    "polyexponential",
    "respaced",
    "space_timesteps",
    "trailing",
    "uniform_logsnr",
    "vp_uniform",
]
