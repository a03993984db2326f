"""How good samples are."""

from diffjax.evaluation.frechet import frechet_distance, moments
from diffjax.evaluation.wasserstein import (
    ScoreErrors,
    empirical_denoiser,
    estimate_score_errors,
    wasserstein_bound,
)

__all__ = [
    "ScoreErrors",
    "empirical_denoiser",
    "estimate_score_errors",
    "frechet_distance",
    "moments",
    "wasserstein_bound",
]
