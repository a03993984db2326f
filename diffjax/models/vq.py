"""The vector-quantised autoencoder: van den Oord et al. 2017; its nets are Rombach et al.'s."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.latents import nearest_codes, straight_through
from diffjax.types import Array


def unit(z: Array) -> Array:
    """z / |z|, by vectors of the last axis."""
    return z * jax.lax.rsqrt(jnp.sum(z**2, axis=-1, keepdims=True) + 1e-12)


def uniform_codes(key, shape, dtype=jnp.float32):
    """Codes uniform in +-1/K, so that they begin closer to each other than to the encoder's z."""
    return jax.random.uniform(key, shape, dtype, -1 / shape[0], 1 / shape[0])


ON_SPHERE = {"scaled": unit, "begin": nn.initializers.normal(1.0)}
"""Of a `VQModel` whose z and codes have length 1 (Yu et al. 2022, section 3.2), so that z cannot
leave the codes behind, which begin all over the sphere."""


class VQModel(nn.Module):
    """An autoencoder whose latents are codes of a learned table.

    Attributes:
      encoder: x -> (B, h, w, latent_channels).
      decoder: (B, h, w, latent_channels) -> x.
      latent_channels: what the decoder is given.
      codes: rows of the codebook.
      code_dim: their width; None for `latent_channels`.
      scaled: what is done to z and to the codes.
      begin: the initializer of the codebook.
    """

    encoder: nn.Module
    decoder: nn.Module
    latent_channels: int = 3
    codes: int = 8192
    code_dim: int | None = None
    scaled: Callable[[Array], Array] = lambda z: z
    begin: nn.initializers.Initializer = uniform_codes

    def setup(self):
        dim = self.code_dim or self.latent_channels
        self.to_codes = nn.Dense(dim)
        self.from_codes = nn.Dense(self.latent_channels)
        self.codebook = self.scaled(self.param("codebook", self.begin, (self.codes, dim)))

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """x (B, H, W, C) -> (reconstruction, indices (B, h, w))."""
        z = self.encode(x)
        return self.decode(z), nearest_codes(z, self.codebook)

    def encode(self, x: Array) -> Array:
        """x (B, H, W, C) in [-1, 1] -> z (B, h, w, code_dim), before it is quantised."""
        return self.scaled(self.to_codes(self.encoder(x)))

    def quantize(self, z: Array) -> Array:
        """The nearest code of each vector; its gradient goes to the codebook."""
        return self.codebook[nearest_codes(z, self.codebook)]

    def decode(self, z: Array) -> Array:
        """z (B, h, w, code_dim), quantised here with the straight-through gradient, -> x."""
        return self.decode_codes(straight_through(z, self.quantize(z)))

    def decode_codes(self, codes: Array) -> Array:
        """Codes (B, h, w, code_dim), not quantised again -> x."""
        return self.decoder(self.from_codes(codes))
