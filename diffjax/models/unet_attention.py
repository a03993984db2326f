"""What a U-Net's levels attend with: self-attention, or a transformer that reads tokens."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.layers import Dtype, GroupNorm, attention, full
from diffjax.models.resnet import Style
from diffjax.models.stacking import repeat
from diffjax.types import Array


class Context(NamedTuple):
    """A sequence to attend to.

    Attributes:
      tokens: (B, L, D).
      mask: (B, L) bool, False where a token is padding; None where none is.
      images: tokens of a picture (B, M, D), of an IP-Adapter; None where there is none.
    """

    tokens: Array
    mask: Array | None = None
    images: Array | None = None


Attend = Callable[..., Callable[[Array, Context | None], Array]]
"""(style, name=) -> (x (B, H, W, C), context) -> x, residual branch included."""


def heads_of(x: Array, heads: int) -> Array:
    """(B, T, heads D) -> (B, T, heads, D)."""
    return x.reshape(*x.shape[:2], heads, -1)


class PixelAttention(nn.Module):
    """Multi-head self-attention over the pixels, residual, zero at initialisation.

    Attributes:
      style: shared by the network.
      heads: number of heads; None where `head_channels` says it.
      head_channels: channels per head; as many heads as fit, and one at least.
      normed: whether a group norm comes first.
    """

    style: Style
    heads: int | None = None
    head_channels: int = 64
    normed: bool = True

    @nn.compact
    def __call__(self, x, context):
        b, height, width, c = x.shape
        heads = self.heads or max(c // self.head_channels, 1)
        inner = heads * (c // heads if self.heads else min(self.head_channels, c))
        h = self.style.norm("norm")(x) if self.normed else x
        qkv = nn.Dense(3 * inner, dtype=self.style.dtype, name="qkv")
        q, k, v = jnp.split(qkv(h.reshape(b, height * width, c)), 3, axis=-1)
        h = attention(*(heads_of(a, heads) for a in (q, k, v)))
        zeros = nn.initializers.zeros
        h = nn.Dense(c, dtype=self.style.dtype, kernel_init=zeros, name="projection")(h)
        return x + h.reshape(x.shape)


class PixelTextAttention(nn.Module):
    """Attention over the pixels and a token sequence at once, residual, zero at initialisation.

    Nichol et al. 2021 (GLIDE), section 2.3: the keys and values of the tokens stand before those of
    the pixels.

    Attributes:
      style: shared by the network.
      head_channels: channels per head; must divide the channels.
    """

    style: Style
    head_channels: int = 64

    @nn.compact
    def __call__(self, x, context):
        if context is None:
            raise InputError("this U-Net reads a token sequence: give cond['tokens'] (B, L, D).")
        b, height, width, c = x.shape
        heads, dtype = c // self.head_channels, self.style.dtype
        h = GroupNorm(self.style.groups, 1e-5, name="norm")(x).reshape(b, height * width, c)
        q, *own = jnp.split(nn.Dense(3 * c, dtype=dtype, name="qkv")(h), 3, axis=-1)
        theirs = jnp.split(nn.Dense(2 * c, dtype=dtype, name="kv")(context.tokens), 2, axis=-1)
        k, v = (jnp.concatenate(pair, axis=1) for pair in zip(theirs, own, strict=True))
        mask = context.mask
        if mask is not None:
            mask = jnp.pad(mask, ((0, 0), (0, height * width)), constant_values=True)
        h = attention(*(heads_of(a, heads) for a in (q, k, v)), mask)
        h = nn.Dense(c, dtype=dtype, kernel_init=nn.initializers.zeros, name="projection")(h)
        return x + h.reshape(x.shape)


class TransformerAttention(nn.Module):
    """Multi-head attention of a sequence to itself or to a context; no biases but the last.

    Attributes:
      heads: number of heads; must divide the channels.
      dtype: of the computation.
      images: whether the tokens of a picture are attended to beside those of the context, by keys
        and values of their own (Ye et al. 2023, Eq. 5).
    """

    heads: int
    dtype: Dtype
    images: bool = False

    @nn.compact
    def __call__(self, x, context):
        def dense(features, name):
            return nn.Dense(features, use_bias=False, dtype=self.dtype, name=name)

        c = x.shape[-1]
        if context is None:
            q, k, v = jnp.split(dense(3 * c, "qkv")(x), 3, axis=-1)
            mask = None
        else:
            mask, q = context.mask, dense(c, "q")(x)
            k, v = jnp.split(dense(2 * c, "kv")(context.tokens), 2, axis=-1)
        h = attention(*(heads_of(a, self.heads) for a in (q, k, v)), mask)
        if self.images:
            if context.images is None:
                raise InputError("an IP-Adapter reads cond['image_tokens'] (B, M, D); got none.")
            k, v = jnp.split(dense(2 * c, "kv_image")(context.images), 2, axis=-1)
            h = h + attention(*(heads_of(a, self.heads) for a in (q, k, v)))
        return nn.Dense(c, dtype=self.dtype, name="projection")(h)


class TransformerBlock(nn.Module):
    """Attention to itself, attention to the context, and a gated feed-forward, all residual.

    Rombach et al. 2022, appendix E.2.1; the gate is GEGLU (Shazeer 2020, Eq. 6).

    Attributes:
      heads: number of heads.
      dtype: of the computation.
      reads_first: the first attention too is to the context, which it sees unmasked.
      images: as in `TransformerAttention`, of the second attention.
    """

    heads: int
    dtype: Dtype
    reads_first: bool = False
    images: bool = False

    @nn.compact
    def __call__(self, x, context):
        def normed(name):
            norm = nn.LayerNorm(1e-5, dtype=full(x.dtype), name=name)
            return norm(x).astype(x.dtype)

        first = context._replace(mask=None) if self.reads_first else None
        x = x + TransformerAttention(self.heads, self.dtype, name="attention_1")(
            normed("norm_1"), first
        )
        x = x + TransformerAttention(self.heads, self.dtype, self.images, name="attention_2")(
            normed("norm_2"), context
        )
        c = x.shape[-1]
        h = nn.Dense(8 * c, dtype=self.dtype, name="ff_in")(normed("norm_3"))
        h, gate = jnp.split(h, 2, axis=-1)
        h = h * nn.gelu(gate, approximate=False)
        return x + nn.Dense(c, dtype=self.dtype, name="ff_out")(h)


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels that read a token sequence: Rombach et al. 2022.

    Attributes:
      style: shared by the network.
      heads: number of heads; must divide the channels.
      depth: number of blocks.
      reads_first: see `TransformerBlock`.
      images: see `TransformerBlock`.
      scan: compile one block for all; see `stack_blocks`.
    """

    style: Style
    heads: int = 8
    depth: int = 1
    reads_first: bool = False
    images: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, x, context):
        if context is None:
            raise InputError("this U-Net reads a token sequence: give cond['tokens'] (B, L, D).")
        b, height, width, c = x.shape
        dtype = self.style.dtype
        h = GroupNorm(self.style.groups, 1e-6, name="norm")(x).reshape(b, height * width, c)
        h = nn.Dense(c, dtype=dtype, name="project_in")(h)
        make = partial(TransformerBlock, self.heads, dtype, self.reads_first, self.images)
        step = lambda block, h, _: (block(h, context), None)  # noqa: E731
        h, _ = repeat(make, step, h, self.depth, scan=self.scan and self.depth > 1)
        zeros = nn.initializers.zeros
        h = nn.Dense(c, dtype=dtype, kernel_init=zeros, name="project_out")(h)
        return x + h.reshape(x.shape)


def scanned(attend: Attend) -> Attend:
    """A transformer's constructor with `scan`; any other as it is."""
    return partial(attend, scan=True) if kind(attend) is SpatialTransformer else attend


def kind(constructor: Any) -> Any:
    """What a `partial` is of, or the constructor itself."""
    return getattr(constructor, "func", constructor)
