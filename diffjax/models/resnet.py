"""The residual block of DDPM and ADM, and what changes the resolution between levels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.models.layers import Dtype, GroupNorm
from diffjax.models.winograd import Convolve, convolve
from diffjax.types import Array


class Style(NamedTuple):
    """What all blocks of a U-Net share.

    Attributes:
      groups: of every group norm; None is chosen by width (see `GroupNorm`).
      epsilon: of every group norm.
      scale_shift: the embedding scales and shifts the second norm's output (ADM); otherwise it
        is added before that norm (DDPM).
      dropout: rate inside residual blocks.
      dtype: of the computation; norms, softmax and the network's output stay float32.
      convolve: how 3x3 convolutions are computed; by default in fewer products on CPUs.
    """

    groups: int | None = 32
    epsilon: float = 1e-5
    scale_shift: bool = True
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    convolve: Convolve = convolve

    def norm(self, name: str) -> GroupNorm:
        """A group norm of this style."""
        return GroupNorm(self.groups, self.epsilon, name=name)

    def conv(self, features: int, name: str, **options: Any) -> nn.Conv:
        """A 3x3 convolution of this style, padded by one pixel."""
        options = {"dtype": self.dtype, "padding": 1, **options}
        return nn.Conv(features, (3, 3), conv_general_dilated=self.convolve, name=name, **options)


Resample = Callable[..., Callable[[Array, Array, bool], Array]]
"""(style, name=) -> (x, embedding, train) -> x at another resolution.

One that doubles the resolution also takes `enlarge`: x -> larger x, by default `nearest`.
"""


def average_pool(x: Array) -> Array:
    """Means of 2x2 pixels: (B, H, W, C) -> (B, H/2, W/2, C)."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def nearest(x: Array) -> Array:
    """Every pixel four times: (B, H, W, C) -> (B, 2H, 2W, C)."""
    b, height, width, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, height, 2, width, 2, c))
    return x.reshape(b, 2 * height, 2 * width, c)


def nearest_to(x: Array, size: tuple[int, int]) -> Array:
    """Resize to (H, W) = size: pixel i of H is pixel floor(i h / H) of h, and so along the width.

    Args:
      x: (B, h, w, C).
      size: of the result; twice that of x is `nearest`.

    Returns:
      (B, H, W, C).
    """
    if size == (2 * x.shape[1], 2 * x.shape[2]):
        return nearest(x)
    for axis, n in zip((1, 2), size, strict=True):
        x = jnp.take(x, np.arange(n) * x.shape[axis] // n, axis=axis)
    return x


class ResNetBlock(nn.Module):
    """norm, SiLU, conv, the embedding, norm, SiLU, dropout, conv; plus the input.

    Ho et al. 2020, appendix B; with `style.scale_shift` and `resample` the block of Dhariwal &
    Nichol 2021, section 3. The last convolution begins at zero.

    Attributes:
      style: shared by the network.
      features: channels of the result; None for those of the input.
      resample: applied to both branches after the first SiLU.
    """

    style: Style
    features: int | None = None
    resample: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x, embedding, train):
        style, features = self.style, self.features or x.shape[-1]
        h = nn.silu(style.norm("norm_in")(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = style.conv(features, "conv_in")(h)
        width = (1 + style.scale_shift) * features
        modulation = nn.Dense(width, dtype=style.dtype, name="modulation")(embedding)
        modulation = modulation[:, None, None, :]
        if style.scale_shift:
            scale, shift = jnp.split(modulation, 2, axis=-1)
            h = style.norm("norm_out")(h) * (1 + scale) + shift
        else:
            h = style.norm("norm_out")(h + modulation)
        h = nn.Dropout(style.dropout, deterministic=not train)(nn.silu(h))
        zeros = nn.initializers.zeros
        h = style.conv(features, "conv_out", kernel_init=zeros)(h)
        if x.shape[-1] != features:
            x = nn.Dense(features, dtype=style.dtype, name="skip")(x)
        return x + h


class ConvDown(nn.Module):
    """A 3x3 convolution of stride 2.

    Attributes:
      style: shared by the network.
      padding: pixels before and after each axis: (1, 1), or (0, 1) in the released DDPM.
    """

    style: Style
    padding: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, x, embedding, train):
        padding = (self.padding, self.padding)
        return self.style.conv(x.shape[-1], "conv", strides=2, padding=padding)(x)


class ConvUp(nn.Module):
    """Every pixel four times, then a 3x3 convolution.

    Attributes:
      style: shared by the network.
      enlarge: x -> larger x, before the convolution.
    """

    style: Style
    enlarge: Callable[[Array], Array] = nearest

    @nn.compact
    def __call__(self, x, embedding, train):
        return self.style.conv(x.shape[-1], "conv")(self.enlarge(x))


def pool_down(style: Style, name: str) -> Callable[[Array, Array, bool], Array]:
    """Half the resolution without parameters."""
    return lambda x, embedding, train: average_pool(x)


def nearest_up(
    style: Style, name: str, enlarge: Callable[[Array], Array] = nearest
) -> Callable[[Array, Array, bool], Array]:
    """Twice the resolution without parameters."""
    return lambda x, embedding, train: enlarge(x)


def residual_down(style: Style, name: str) -> ResNetBlock:
    """Half the resolution by a residual block: Dhariwal & Nichol 2021, section 3."""
    return ResNetBlock(style, resample=average_pool, name=name)


def residual_up(
    style: Style, name: str, enlarge: Callable[[Array], Array] = nearest
) -> ResNetBlock:
    """Twice the resolution by a residual block: Dhariwal & Nichol 2021, section 3."""
    return ResNetBlock(style, resample=enlarge, name=name)
