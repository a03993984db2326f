"""How good samples are: metrics as pure functions of feature arrays in float64."""

from diffjax.evaluation.diversity import vendi
from diffjax.evaluation.extrapolation import (
    fid_infinity,
    is_infinity,
    subset_orders,
    subset_sizes,
)
from diffjax.evaluation.frechet import fid, frechet_distance, moments, sfid
from diffjax.evaluation.inception_score import inception_score
from diffjax.evaluation.kernels import (
    cmmd,
    gaussian,
    kid,
    kid_subsets,
    median_distance,
    mmd_test,
    polynomial,
)
from diffjax.evaluation.memorisation import (
    authenticity,
    copying_ct,
    copying_z,
    nearest_ratio,
)
from diffjax.evaluation.neighbours import AllPairs, all_pairs, density_coverage, precision_recall
from diffjax.evaluation.pairs import psnr, ssim, ssim_reflect
from diffjax.evaluation.transport import directions, mind, sliced_wasserstein, wasserstein
from diffjax.evaluation.wasserstein_bound import (
    ScoreErrors,
    empirical_denoiser,
    estimate_score_errors,
    wasserstein_bound,
)

__all__ = [
    "AllPairs",
    "ScoreErrors",
    "all_pairs",
    "authenticity",
    "cmmd",
    "copying_ct",
    "copying_z",
    "density_coverage",
    "directions",
    "empirical_denoiser",
    "estimate_score_errors",
    "fid",
    "fid_infinity",
    "frechet_distance",
    "gaussian",
    "inception_score",
    "is_infinity",
    "kid",
    "kid_subsets",
    "median_distance",
    "mind",
    "mmd_test",
    "moments",
    "nearest_ratio",
    "polynomial",
    "precision_recall",
    "psnr",
    "sfid",
    "sliced_wasserstein",
    "ssim",
    "ssim_reflect",
    "subset_orders",
    "subset_sizes",
    "vendi",
    "wasserstein",
    "wasserstein_bound",
]
