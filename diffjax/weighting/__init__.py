"""Loss weights w(logsnr) and densities p(t) of training times.

A weight multiplies |x0_hat - x0|^2; a density is a `TimeDensity`.
"""

from diffjax.weighting.densities import (
    edm_lognormal,
    logit_normal,
    on_steps,
    score_norm,
    second_moment,
    stratified,
    uniform,
)
from diffjax.weighting.weights import (
    edm_weight,
    elbo_weight,
    min_snr,
    over_logsnr,
    p2,
    sigmoid_weight,
    snr,
    snr_plus_one,
    truncated_snr,
    unit,
    velocity,
)

__all__ = [
    "edm_lognormal",
    "edm_weight",
    "elbo_weight",
    "logit_normal",
    "min_snr",
    "on_steps",
    "over_logsnr",
    "p2",
    "score_norm",
    "second_moment",
    "sigmoid_weight",
    "snr",
    "snr_plus_one",
    "stratified",
    "truncated_snr",
    "uniform",
    "unit",
    "velocity",
]
