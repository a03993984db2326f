"""Training losses, each a factory of a `LossFn`: loss(params, key, batch, **context).

`batch` is {"x": (B, ...) in [-1, 1]} and the conditions beside it ("label", ...).
"""

from diffjax.losses.denoising import (
    denoising_loss,
    discretized_gaussian_log_likelihood,
    hybrid_loss,
    hybrid_terms,
    learned_uncertainty,
    per_sample_mean,
    prior_term,
    split_batch,
    vb_term,
)
from diffjax.losses.score import (
    denoising_score_matching,
    noise_variance,
    sliced_score_matching,
)
from diffjax.losses.wasserstein import (
    ScoreErrors,
    empirical_denoiser,
    estimate_score_errors,
    wasserstein_bound,
)

__all__ = [
    "ScoreErrors",
    "denoising_loss",
    "denoising_score_matching",
    "discretized_gaussian_log_likelihood",
    "empirical_denoiser",
    "estimate_score_errors",
    "hybrid_loss",
    "hybrid_terms",
    "learned_uncertainty",
    "noise_variance",
    "per_sample_mean",
    "prior_term",
    "sliced_score_matching",
    "split_batch",
    "vb_term",
    "wasserstein_bound",
]
