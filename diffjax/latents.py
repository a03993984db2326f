"""Latent variables as pure functions: Gaussian posteriors, codebooks, and their scale.

The codes of a vector-quantised autoencoder are rows of a codebook (K, D).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.types import Anyshape, Array, PRNGKeyArray, Scalar


class LatentScale(NamedTuple):
    """The affine map between an autoencoder's latents and what a diffusion model is trained on.

    Attributes:
      factor: makes the latents' standard deviation about 1, such as 0.18215 for Stable
        Diffusion 1: Rombach et al. 2022, section 4.3.2; one number, or one per channel (C,).
      shift: subtracted before that, 0 where the latents have mean 0; likewise.
    """

    factor: Scalar | Array = 1.0
    shift: Scalar | Array = 0.0

    def to_diffusion(self, z: Anyshape) -> Anyshape:
        """(z - shift) factor."""
        return (z - per_channel(self.shift, z)) * per_channel(self.factor, z)

    def to_autoencoder(self, x0: Anyshape) -> Anyshape:
        """x0 / factor + shift, the inverse of `to_diffusion`."""
        return x0 / per_channel(self.factor, x0) + per_channel(self.shift, x0)


def per_channel(a: Scalar | Array, x: Array) -> Array:
    """Give a scalar or (C,) value the leading axes it needs to multiply x (..., C)."""
    a = jnp.asarray(a, x.dtype)
    return a if a.ndim == 0 else a.reshape((1,) * (x.ndim - 1) + a.shape)


def reparameterize(mean: Anyshape, logvar: Anyshape, eps: Anyshape) -> Anyshape:
    """mean + exp(logvar / 2) eps: Kingma & Welling 2014.

    Args:
      mean: of the posterior.
      logvar: natural logarithm of its variance; -inf for a point.
      eps: standard normal.

    Returns:
      A draw of N(mean, exp(logvar)).
    """
    return mean + jnp.exp(logvar / 2) * eps


def sample_posterior(key: PRNGKeyArray, mean: Anyshape, logvar: Anyshape) -> Anyshape:
    """A draw of N(mean, exp(logvar)), of the mean's shape and type."""
    return reparameterize(mean, logvar, jax.random.normal(key, mean.shape, mean.dtype))


def nearest_codes(z: Array, codebook: Array) -> Array:
    """argmin_k |z - e_k|^2: van den Oord et al. 2017; the first one of a tie.

    Args:
      z: vectors (..., D).
      codebook: e (K, D).

    Returns:
      Indices (...) into the codebook.
    """
    # |z|^2 is the same for every code. The product decides which is nearest: no short floats.
    products = jnp.einsum("...d,kd->...k", z, codebook, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sum(codebook**2, axis=1)
    return jnp.argmin(norms.reshape((1,) * (z.ndim - 1) + (-1,)) - 2 * products, axis=-1)


def straight_through(z: Anyshape, codes: Anyshape) -> Anyshape:
    """`codes` going forward, the identity of z going back: van den Oord et al. 2017.

    Args:
      z: what the encoder said.
      codes: what the decoder is given in its place.

    Returns:
      `codes`, whose gradient goes to z unchanged and to `codes` not at all.
    """
    return z + jax.lax.stop_gradient(codes - z)


def vector_quantize(z: Array, codebook: Array) -> tuple[Array, Array]:
    """The nearest code of each vector, with the straight-through gradient.

    Args:
      z: vectors (..., D).
      codebook: (K, D).

    Returns:
      (z_q (..., D), indices (...)); z_q's gradient is that of z, and the codebook has none:
      its own loss trains it (`losses.codebook_terms`).
    """
    indices = nearest_codes(z, codebook)
    return straight_through(z, codebook[indices]), indices
