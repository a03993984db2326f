"""The U-Net of Stable Cascade (Pernias et al. 2023, Wuerstchen): ConvNeXt blocks, time and tokens.

Layers bear the names of its files.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.models.layers import attention, sinusoidal_embedding
from diffjax.models.pixels import pixel_shuffle, pixel_unshuffle
from diffjax.models.published_layers import needed, plain_norm
from diffjax.models.text.encoding import exact_gelu, heads_of
from diffjax.types import Array, Cond

WAVELENGTHS = 10_000  # the times in [0, 1] are multiplied by it


def aligned(x: Array, size: tuple[int, int]) -> Array:
    """Bilinear resizing whose first and last pixels stay at the corners.

    Args:
      x: (B, h, w, C).
      size: (H, W) of the result.

    Returns:
      (B, H, W, C).
    """
    for axis, n in zip((1, 2), size, strict=True):
        last = x.shape[axis] - 1
        place = np.arange(n) * (last / max(n - 1, 1))
        low = np.minimum(np.floor(place).astype(int), last)
        shape = (-1, 1, 1) if axis == 1 else (1, -1, 1)
        share = jnp.asarray((place - low).reshape(1, *shape), x.dtype)
        high = jnp.take(x, np.minimum(low + 1, last), axis=axis)
        x = jnp.take(x, low, axis=axis) * (1 - share) + high * share
    return x


class ResponseNorm(nn.Module):
    """x gamma |x|_c / mean |x|_c + beta + x: Woo et al. 2023 (ConvNeXt V2), Algorithm 1."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to its shape."""
        gamma, beta = (
            self.param(name, nn.initializers.zeros, (1, 1, 1, x.shape[-1]))
            for name in ("gamma", "beta")
        )
        size = jnp.sqrt(jnp.sum(x**2, (1, 2), keepdims=True))
        share = size / (size.mean(-1, keepdims=True) + 1e-6)
        return gamma * (x * share) + beta + x


class ResBlock(nn.Module):
    """A depthwise convolution, a norm, and an MLP over the channels, which also reads a skip.

    Attributes:
      kernel: side of the convolution.
      dropout: rate within the MLP.
    """

    kernel: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, skip: Array | None, train: bool) -> Array:
        """x (B, H, W, C) to its shape."""
        c, side = x.shape[-1], (self.kernel, self.kernel)
        options = {"padding": self.kernel // 2, "feature_group_count": c, "name": "depthwise"}
        h = plain_norm(nn.Conv(c, side, **options)(x))
        h = h if skip is None else jnp.concatenate([h, skip], axis=-1)
        h = exact_gelu(nn.Dense(4 * c, name="channelwise.0")(h))
        h = ResponseNorm(name="channelwise.2")(h)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return x + nn.Dense(c, name="channelwise.4")(h)


class TimeBlock(nn.Module):
    """x (1 + a) + b, where a and b are linear in the embedded times.

    Attributes:
      names: of the further times.
    """

    names: tuple[str, ...]

    @nn.compact
    def __call__(self, x: Array, times: Sequence[Array]) -> Array:
        """x (B, H, W, C) and times, each (B, D), to x's shape."""
        layers = ["mapper", *(f"mapper_{name}" for name in self.names)]
        both = [nn.Dense(2 * x.shape[-1], name=n)(t) for n, t in zip(layers, times, strict=True)]
        a, b = jnp.split(sum(both[1:], both[0])[:, None, None], 2, axis=-1)
        return x * (1 + a) + b


class AttendBlock(nn.Module):
    """Attention of the pixels to the condition's tokens and to themselves.

    Attributes:
      heads: number of heads.
      own: whether to themselves.
    """

    heads: int
    own: bool

    @nn.compact
    def __call__(self, x: Array, tokens: Array) -> Array:
        """x (B, H, W, C) and tokens (B, L, D) to x's shape."""
        c = x.shape[-1]
        h = plain_norm(x).reshape(x.shape[0], -1, c)
        keys = nn.Dense(c, name="kv_mapper.1")(nn.silu(tokens))
        keys = jnp.concatenate([h, keys], axis=1) if self.own else keys
        q, k, v = (
            heads_of(nn.Dense(c, name=f"attention.to_{letter}")(a), self.heads)
            for letter, a in (("q", h), ("k", keys), ("v", keys))
        )
        h = nn.Dense(c, name="attention.to_out.0")(attention(q, k, v))
        return x + h.reshape(x.shape)


class Doubled(nn.Module):
    """Each pixel to 2x2 pixels by a linear layer of its own for each place.

    Attributes:
      features: channels of the result.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to (B, 2H, 2W, features)."""
        init = nn.initializers.xavier_uniform(in_axis=-1, out_axis=-2)
        kernel = self.param("kernel", init, (2, 2, self.features, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        b, height, width, _ = x.shape
        y = jnp.einsum("bijc,krfc->bikjrf", x, kernel)
        return y.reshape(b, 2 * height, 2 * width, self.features) + bias[None, None, None]


class CascadeLevel(NamedTuple):
    """One resolution.

    Attributes:
      width: channels.
      heads: of its attention.
      down: layers on the way down.
      up: layers on the way up.
      down_repeats: how often they run on the way down, with a 1x1 layer between.
      up_repeats: likewise on the way up.
      kinds: of blocks of a layer: "SDCascadeResBlock", "SDCascadeTimestepBlock" or
        "SDCascadeAttnBlock".
      own: whether its attention is also to the pixels themselves.
      dropout: rate within its residual blocks.
    """

    width: int
    heads: int
    down: int
    up: int
    down_repeats: int
    up_repeats: int
    kinds: tuple[str, ...]
    own: bool
    dropout: float


class Cascade(nn.Module):
    """Stable Cascade's U-Net, of its prior (stage C) and of its decoder (stage B).

    Attributes:
      levels: from the full resolution on.
      channels: of the result.
      times: width of each embedded time.
      further: names of further times, such as ("sca", "crp").
      width: of the tokens.
      tokens: tokens that a vector becomes.
      text: whether a text's states and a picture's embedding are read.
      image: whether the latents of a smaller picture (stage B) are read.
      pixels: whether a picture is read.
      patch: side of the square of pixels that becomes one.
      kernel: side of the convolutions.
      resized: for each step between levels whether it is by bilinear resizing (or at one size),
        or None where it is by strided convolutions.
    """

    levels: tuple[CascadeLevel, ...]
    channels: int
    times: int = 64
    further: tuple[str, ...] = ("sca", "crp")
    width: int = 2048
    tokens: int = 4
    text: bool = True
    image: bool = False
    pixels: bool = False
    patch: int = 1
    kernel: int = 3
    resized: tuple[bool, ...] | None = None

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """The noise in x.

        Args:
          x: (B, H, W, C).
          t: times (B,) in [0, 1].
          cond: `vector` (B, V) or (B, n, V), pooled text; `tokens` (B, L, E) and
            `image_embedding` (B, E') or (B, n, E'), both or neither; `image` (B, h, w, C') where
            it is read; further times (B,), by default 0; `pixels` (B, h, w, 3), by default 0.
          train: whether dropout acts.

        Returns:
          (B, H, W, channels).
        """
        cond = cond or {}
        each = [t, *(cond.get(name, jnp.zeros_like(t)) for name in self.further)]
        bound = {"times": [self.wave(r) for r in each], "tokens": self.clip(cond), "train": train}
        conv = partial(nn.Conv, kernel_size=(1, 1))
        h = conv(self.levels[0].width, name="embedding.1")(pixel_unshuffle(x, self.patch))
        h = plain_norm(h)
        if self.image and "image" in cond:
            h = h + self.mapped("effnet_mapper", aligned(cond["image"], h.shape[1:3]))
        if self.pixels:
            picture = cond.get("pixels", jnp.zeros((x.shape[0], 8, 8, 3), x.dtype))
            h = h + aligned(self.mapped("pixels_mapper", picture), h.shape[1:3])
        skips = self.lower(h, bound)
        h = self.upper(skips, bound)
        h = conv(self.channels * self.patch**2, name="clf.1")(plain_norm(h))
        return pixel_shuffle(h, self.patch)

    def wave(self, r: Array) -> Array:
        """A time's sines and cosines (B, times)."""
        h = sinusoidal_embedding(WAVELENGTHS * r, self.times, shift=1.0)
        return jnp.roll(h, self.times // 2, axis=1)

    def clip(self, cond: Cond) -> Array:
        """The tokens (B, L, width)."""

        def several(name, layer):
            h = needed(cond, name, "Stable Cascade")
            h = nn.Dense(self.width * self.tokens, name=layer)(h)
            return h.reshape(h.shape[0], -1, self.width)

        pooled = several("vector", "clip_txt_pooled_mapper")
        if self.text and ("tokens" in cond or "image_embedding" in cond):
            text = needed(cond, "tokens", "Stable Cascade, with an image_embedding,")
            text = nn.Dense(self.width, name="clip_txt_mapper")(text)
            picture = several("image_embedding", "clip_img_mapper")
            pooled = jnp.concatenate([text, pooled, picture], axis=1)
        return plain_norm(pooled)

    def mapped(self, name: str, x: Array) -> Array:
        """A picture in channels of the first level."""
        c = self.levels[0].width
        h = exact_gelu(nn.Conv(4 * c, (1, 1), name=f"{name}.0")(x))
        return plain_norm(nn.Conv(c, (1, 1), name=f"{name}.2")(h))

    def blocks(self, level: CascadeLevel, count: int, name: str) -> list[Callable]:
        """The blocks of a level as functions (h, skip of the first one, bound) -> h."""

        def make(kind, place):
            if kind == "SDCascadeResBlock":
                block = ResBlock(self.kernel, level.dropout, name=place)
                return lambda h, skip, bound: block(h, skip, bound["train"])
            if kind == "SDCascadeTimestepBlock":
                block = TimeBlock(self.further, name=place)
                return lambda h, skip, bound: block(h, bound["times"])
            block = AttendBlock(level.heads, level.own, name=place)
            return lambda h, skip, bound: block(h, bound["tokens"])

        kinds = level.kinds * count
        return [make(kind, f"{name}.{i}") for i, kind in enumerate(kinds)]

    def run(self, blocks: list, h: Array, skip: Any, bound: dict, repeats: int, name: str) -> Array:
        """The blocks one after another, all of them several times."""
        for j in range(repeats):
            for k, block in enumerate(blocks):
                h = block(h, skip if k == 0 else None, bound)
            if j < repeats - 1:
                h = nn.Conv(h.shape[-1], (1, 1), name=f"{name}.{j}")(h)
        return h

    def lower(self, h: Array, bound: dict) -> list[Array]:
        """The way down: what leaves each level, the coarsest first."""
        outputs = []
        for i, level in enumerate(self.levels):
            if i and self.resized is None:
                name = f"down_downscalers.{i}.1"
                h = nn.Conv(level.width, (2, 2), 2, padding="VALID", name=name)(plain_norm(h))
            elif i:
                name = f"down_downscalers.{i}.1.blocks.0"
                h = nn.Conv(level.width, (1, 1), name=name)(plain_norm(h))
                halves = (h.shape[1] // 2, h.shape[2] // 2)
                h = aligned(h, halves) if self.resized[i - 1] else h
            blocks = self.blocks(level, level.down, f"down_blocks.{i}")
            name = f"down_repeat_mappers.{i}"
            h = self.run(blocks, h, None, bound, level.down_repeats, name)
            outputs.insert(0, h)
        return outputs

    def upper(self, skips: list[Array], bound: dict) -> Array:
        """The way up from what leaves the levels of the way down."""
        h, last = skips[0], len(self.levels) - 1
        for j, i in enumerate(range(last, -1, -1)):
            level, skip = self.levels[i], skips[j] if j else None
            if skip is not None and h.shape[1:3] != skip.shape[1:3]:
                h = aligned(h, skip.shape[1:3])
            blocks = self.blocks(level, level.up, f"up_blocks.{j}")
            h = self.run(blocks, h, skip, bound, level.up_repeats, f"up_repeat_mappers.{j}")
            if i and self.resized is None:
                h = Doubled(self.levels[i - 1].width, name=f"up_upscalers.{j}.1")(plain_norm(h))
            elif i:
                twice = (2 * h.shape[1], 2 * h.shape[2])
                h = plain_norm(h)
                h = aligned(h, twice) if self.resized[i - 1] else h
                name = f"up_upscalers.{j}.1.blocks.1"
                h = nn.Conv(self.levels[i - 1].width, (1, 1), name=name)(h)
        return h
