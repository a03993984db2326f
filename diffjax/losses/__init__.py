"""Training losses, each a factory of a `LossFn`: loss(params, key, batch, **context).

`batch` is {"x": (B, ...) in [-1, 1]} and the conditions beside it ("label", ...).
"""

from diffjax.losses.adversarial import (
    Game,
    adaptive_weight,
    adversarial_loss,
    hinge,
    non_saturating,
)
from diffjax.losses.autoencoder import (
    Reconstruction,
    autoencoder_loss,
    codebook_terms,
    feature_distance,
    gaussian_nll,
    kl_to_standard_normal,
    l1,
    l2,
    multiscale,
    variational,
    vector_quantized,
    weighted_sum,
)
from diffjax.losses.denoising import (
    denoising_loss,
    discretized_gaussian_log_likelihood,
    hybrid_loss,
    hybrid_terms,
    learned_uncertainty,
    per_sample_mean,
    prior_term,
    split_batch,
    unconditional,
    vb_term,
)
from diffjax.losses.score import (
    denoising_score_matching,
    noise_variance,
    sliced_score_matching,
)

__all__ = [
    "Game",
    "Reconstruction",
    "adaptive_weight",
    "adversarial_loss",
    "autoencoder_loss",
    "codebook_terms",
    "denoising_loss",
    "denoising_score_matching",
    "discretized_gaussian_log_likelihood",
    "feature_distance",
    "gaussian_nll",
    "hinge",
    "hybrid_loss",
    "hybrid_terms",
    "kl_to_standard_normal",
    "l1",
    "l2",
    "learned_uncertainty",
    "multiscale",
    "noise_variance",
    "non_saturating",
    "per_sample_mean",
    "prior_term",
    "sliced_score_matching",
    "split_batch",
    "unconditional",
    "variational",
    "vb_term",
    "vector_quantized",
    "weighted_sum",
]
