"""The deep compression autoencoder DC-AE (Chen et al. 2024): residual by space to channels.

Layers have the names that its published files use. Latents are a point, without a variance.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.linear_attention import ChannelNorm, GatedConv, relu_attention
from diffjax.models.pixels import group_means, pixel_shuffle, pixel_unshuffle, repeat_channels
from diffjax.models.resnet import nearest
from diffjax.types import Array


class DCBlock(nn.Module):
    """conv, f, conv, norm, plus the input."""

    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to its shape."""
        c = x.shape[-1]
        h = self.activation(nn.Conv(c, (3, 3), padding=1, name="conv1")(x))
        h = nn.Conv(c, (3, 3), padding=1, use_bias=False, name="conv2")(h)
        return x + ChannelNorm(name="norm")(h)


class MultiscaleAttention(nn.Module):
    """Linear attention of queries, keys and values at several scales, plus the input.

    As the released files have it, the channels of all queries, then keys, then values are cut
    into runs of three heads' widths, each of which is a query, a key and a value.

    Attributes:
      head_width: channels of a head.
      kernels: of the depthwise convolutions that make the further scales.
    """

    head_width: int
    kernels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to its shape."""
        b, height, width, c = x.shape
        inner = c // self.head_width * self.head_width
        layers = [nn.Dense(inner, use_bias=False, name=f"to_{letter}")(x) for letter in "qkv"]
        h = jnp.concatenate(layers, axis=-1)
        scales = [h]
        for i, kernel in enumerate(self.kernels):
            place, options = f"to_qkv_multiscale.{i}", {"use_bias": False}
            wide = {"feature_group_count": 3 * inner, "padding": kernel // 2}
            y = nn.Conv(3 * inner, (kernel,) * 2, name=f"{place}.proj_in", **wide, **options)(h)
            groups = 3 * inner // self.head_width
            narrow = {"feature_group_count": groups, "name": f"{place}.proj_out"}
            scales.append(nn.Conv(3 * inner, (1, 1), **narrow, **options)(y))
        h = jnp.concatenate(scales, axis=-1)
        h = h.reshape(b, height * width, -1, 3, self.head_width)
        h = relu_attention(h[:, :, :, 0], h[:, :, :, 1], h[:, :, :, 2])
        h = h.reshape(b, height, width, -1)
        h = nn.Dense(c, use_bias=False, name="to_out")(h)
        return x + ChannelNorm(name="norm_out")(h)


class VitBlock(nn.Module):
    """Multiscale attention and a gated convolution.

    Attributes:
      head_width: channels of a head.
      kernels: of the further scales.
    """

    head_width: int
    kernels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to its shape."""
        x = MultiscaleAttention(self.head_width, self.kernels, name="attn")(x)
        return GatedConv(4 * x.shape[-1], True, True, name="conv_out")(x)


class DCDown(nn.Module):
    """Half the resolution, plus the means of the input's space-to-channels.

    Attributes:
      features: channels of the result.
      unshuffle: by space to channels after the convolution, or else by its stride.
      shortcut: whether the means are added.
    """

    features: int
    unshuffle: bool
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to (B, H/2, W/2, features)."""
        width, stride = (self.features // 4, 1) if self.unshuffle else (self.features, 2)
        h = nn.Conv(width, (3, 3), stride, padding=1, name="conv")(x)
        h = pixel_unshuffle(h, 2) if self.unshuffle else h
        return h + group_means(pixel_unshuffle(x, 2), self.features) if self.shortcut else h


class DCUp(nn.Module):
    """Twice the resolution, plus the input's repeated channels to space.

    Attributes:
      features: channels of the result.
      shuffle: by channels to space after the convolution, or else by repetition before it.
      shortcut: whether the repeated channels are added.
    """

    features: int
    shuffle: bool
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to (B, 2H, 2W, features)."""
        if self.shuffle:
            h = pixel_shuffle(nn.Conv(4 * self.features, (3, 3), padding=1, name="conv")(x), 2)
        else:
            h = nn.Conv(self.features, (3, 3), padding=1, name="conv")(nearest(x))
        if not self.shortcut:
            return h
        return h + pixel_shuffle(repeat_channels(x, 4 * self.features), 2)


class DCEncoder(nn.Module):
    """Images to latents.

    Attributes:
      latents: channels of the latents.
      widths: of each level.
      layers: (level, name) -> the makers of its blocks.
      unshuffle: as in `DCDown`.
      shortcut: whether the means of channels are added at the end.
    """

    latents: int
    widths: tuple[int, ...]
    layers: tuple[tuple[Callable[..., nn.Module], ...], ...]
    unshuffle: bool
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) in [-1, 1] to its latents."""
        if self.layers[0]:
            x = nn.Conv(self.widths[0], (3, 3), padding=1, name="conv_in")(x)
        else:
            x = DCDown(self.widths[1], self.unshuffle, False, name="conv_in")(x)
        for i, makers in enumerate(self.layers):
            for j, make in enumerate(makers):
                x = make(name=f"down_blocks.{i}.{j}")(x)
            if makers and i < len(self.widths) - 1:
                down = DCDown(self.widths[i + 1], self.unshuffle, name=f"down_blocks.{i}.{j + 1}")
                x = down(x)
        h = nn.Conv(self.latents, (3, 3), padding=1, name="conv_out")(x)
        return h + group_means(x, self.latents) if self.shortcut else h


class DCDecoder(nn.Module):
    """Latents to images. Attributes as in `DCEncoder`, and the last activation."""

    channels: int
    widths: tuple[int, ...]
    layers: tuple[tuple[Callable[..., nn.Module], ...], ...]
    shuffle: bool
    shortcut: bool = True
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Latents (B, h, w, c) to x."""
        x = nn.Conv(self.widths[-1], (3, 3), padding=1, name="conv_in")(z)
        x = x + repeat_channels(z, self.widths[-1]) if self.shortcut else x
        for i, makers in reversed(list(enumerate(self.layers))):
            first = int(i < len(self.widths) - 1 and bool(makers))
            if first:
                x = DCUp(self.widths[i], self.shuffle, name=f"up_blocks.{i}.0")(x)
            for j, make in enumerate(makers):
                x = make(name=f"up_blocks.{i}.{first + j}")(x)
        x = self.activation(ChannelNorm(name="norm_out")(x))
        if self.layers[0]:
            return nn.Conv(self.channels, (3, 3), padding=1, name="conv_out")(x)
        return DCUp(self.channels, self.shuffle, False, name="conv_out")(x)
