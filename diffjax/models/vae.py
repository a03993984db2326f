"""The plain variational autoencoder: Kingma & Welling 2014."""

import math

import jax.numpy as jnp
from flax import linen as nn

from diffjax.types import Array


class VAE(nn.Module):
    """Two small networks: Gaussian MLPs as in Kingma & Welling 2014.

    Attributes:
      shape: of one sample of the data, such as (8, 8, 1) or (d,).
      latent: number of latent variables.
      hidden: widths of the tanh layers of the encoder, reversed in the decoder; () is linear,
        and then the model is probabilistic PCA.
    """

    shape: tuple[int, ...]
    latent: int
    hidden: tuple[int, ...] = (256,)

    def setup(self):
        self.encoder = TanhMLP(self.hidden, 2 * self.latent)
        self.decoder = TanhMLP(self.hidden[::-1], math.prod(self.shape))

    def __call__(self, x: Array) -> tuple[Array, Array, Array]:
        """x (B, *shape) -> (reconstruction of the mean's latents, mean, logvar)."""
        mean, logvar = self.encode(x)
        return self.decode(mean), mean, logvar

    def encode(self, x: Array) -> tuple[Array, Array]:
        """x (B, *shape) -> (mean, logvar), each (B, latent)."""
        mean, logvar = jnp.split(self.encoder(x.reshape(x.shape[0], -1)), 2, axis=-1)
        return mean, logvar

    def decode(self, z: Array) -> Array:
        """z (B, latent) -> the mean of x (B, *shape)."""
        return self.decoder(z).reshape(-1, *self.shape)


class TanhMLP(nn.Module):
    """tanh layers, and a linear one of `out` units."""

    hidden: tuple[int, ...]
    out: int

    @nn.compact
    def __call__(self, x):
        for i, width in enumerate(self.hidden):
            x = nn.tanh(nn.Dense(width, name=f"hidden_{i}")(x))
        return nn.Dense(self.out, name="out")(x)
