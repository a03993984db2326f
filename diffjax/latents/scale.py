"""The affine map between an autoencoder's latents and what is diffused."""

from typing import NamedTuple

import jax.numpy as jnp

from diffjax.types import Anyshape, Array, Scalar

Scale = Scalar | Array | tuple[float, ...]


class LatentScale(NamedTuple):
    """The affine map between an autoencoder's latents and what a diffusion model is trained on.

    Attributes:
      factor: makes the latents' standard deviation about 1, such as 0.18215 for Stable
        Diffusion 1: Rombach et al. 2022, section 4.3.2; one number, or one per channel (C,), as
        an array or a tuple.
      shift: subtracted before that, 0 where the latents have mean 0; likewise.
    """

    factor: Scale = 1.0
    shift: Scale = 0.0

    def to_diffusion(self, z: Anyshape) -> Anyshape:
        """(z - shift) factor."""
        return (z - per_channel(self.shift, z)) * per_channel(self.factor, z)

    def to_autoencoder(self, x0: Anyshape) -> Anyshape:
        """x0 / factor + shift, the inverse of `to_diffusion`."""
        return x0 / per_channel(self.factor, x0) + per_channel(self.shift, x0)


def per_channel(a: Scale, x: Array) -> Array:
    """Give a scalar or (C,) value the leading axes it needs to multiply x (..., C)."""
    a = jnp.asarray(a, x.dtype)
    return a if a.ndim == 0 else a.reshape((1,) * (x.ndim - 1) + a.shape)
