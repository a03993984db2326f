"""The small distilled autoencoder of latents (TAESD), without attention or norms.

Layers have the names that its published files use; images and latents are NHWC.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from diffjax.types import Array


def conv(features: int, name: str, **options) -> nn.Conv:
    """A 3x3 convolution padded by one pixel."""
    return nn.Conv(features, (3, 3), padding=1, name=name, **options)


class TinyBlock(nn.Module):
    """f(three convolutions with f between + the input)."""

    features: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to (B, H, W, features)."""
        f = self.activation
        h = f(conv(self.features, "conv.0")(x))
        h = conv(self.features, "conv.4")(f(conv(self.features, "conv.2")(h)))
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), use_bias=False, name="skip")(x)
        return f(h + x)


class TinyEncoder(nn.Module):
    """Images in [-1, 1] to latents.

    Attributes:
      latents: channels of the latents.
      widths: of each level.
      blocks: of each level.
      activation: f.
    """

    latents: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to (B, H/f, W/f, latents), f = 2^(levels - 1)."""
        x, k = (x + 1) / 2, 0
        for i, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            options = {"strides": 2, "use_bias": False} if i else {}
            x = conv(width, f"layers.{k}", **options)(x)
            for j in range(blocks):
                x = TinyBlock(width, self.activation, name=f"layers.{k + 1 + j}")(x)
            k += 1 + blocks
        return conv(self.latents, f"layers.{k}")(x)


class TinyDecoder(nn.Module):
    """Latents to images in about [-1, 1].

    Attributes:
      channels: of the images.
      widths: of each level, the coarsest first.
      blocks: of each level.
      scale: how often each pixel is repeated between levels.
      activation: f.
    """

    channels: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    scale: int = 2
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Latents (B, h, w, c), softly clamped to (-3, 3), to (B, f h, f w, channels)."""
        x = self.activation(conv(self.widths[0], "layers.0")(3 * jnp.tanh(z / 3)))
        k, last = 2, len(self.widths) - 1
        for i, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for j in range(blocks):
                x = TinyBlock(width, self.activation, name=f"layers.{k + j}")(x)
            k += blocks
            if i < last:
                x, k = x.repeat(self.scale, axis=1).repeat(self.scale, axis=2), k + 1
            features = width if i < last else self.channels
            x = conv(features, f"layers.{k}", use_bias=i == last)(x)
            k += 1
        return 2 * x - 1
