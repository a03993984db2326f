"""Latent variables: Gaussian posteriors, codebooks, their scale, and latents kept on disk."""

from diffjax.latents.autoencoder import Autoencoder
from diffjax.latents.codes import nearest_codes, straight_through, vector_quantize
from diffjax.latents.posterior import reparameterize, sample_posterior
from diffjax.latents.scale import LatentScale, per_channel

__all__ = [
    "Autoencoder",
    "LatentScale",
    "nearest_codes",
    "per_channel",
    "reparameterize",
    "sample_posterior",
    "straight_through",
    "vector_quantize",
]
