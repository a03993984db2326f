"""Noise schedules: x_t = alpha(t) x0 + sigma(t) eps with t continuous, larger is noisier.

A published beta table becomes a continuous schedule through `from_betas`; the others are
continuous to begin with, shifted from another, or learned.
"""

from diffjax.schedules.betas import (
    cosine_betas,
    from_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
    sigmoid_betas,
)
from diffjax.schedules.continuous import (
    edm,
    gvp,
    laplace,
    rectified_flow,
    sub_vp,
    ve,
    vp_cosine,
    vp_linear,
)
from diffjax.schedules.learned import learned_vp
from diffjax.schedules.shift import shifted
from diffjax.schedules.snr import clean_time, logsnr, zero_terminal_snr

__all__ = [
    "clean_time",
    "cosine_betas",
    "edm",
    "from_betas",
    "gvp",
    "laplace",
    "learned_vp",
    "linear_betas",
    "logsnr",
    "rectified_flow",
    "rescale_zero_terminal_snr",
    "scaled_linear_betas",
    "shifted",
    "sigmoid_betas",
    "sub_vp",
    "ve",
    "vp_cosine",
    "vp_linear",
    "zero_terminal_snr",
]
