"""Codes of vector-quantised autoencoders: rows of a codebook (K, D)."""

import jax
import jax.numpy as jnp

from diffjax.types import Anyshape, Array


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
