"""U-ViT (Bao et al. 2023): every condition is a token, and long skips join its halves."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.layers import Dtype, sinusoidal_embedding
from diffjax.models.patches import LabelEmbedding, check_patches, patchify, unpatchify
from diffjax.models.position import Cells, cells
from diffjax.models.stacking import repeat
from diffjax.models.transformer import (
    MLP,
    QKV,
    BlockContext,
    LayerNorm,
    SelfAttention,
    dense,
    small,
)
from diffjax.types import Array, Cond

affine_norm = partial(LayerNorm, affine=True, epsilon=1e-5)


class PlainBlock(nn.Module):
    """h + attention(norm(h)), then h + mlp(norm(h)): the pre-norm transformer of Xiong et al. 2020.

    Attributes:
      heads: number of attention heads.
      attention: makes the attention: (heads, dtype, name) -> module of (x, context).
      mlp: makes the MLP: (dtype, name) -> module of (x).
      norm: makes the norms: (name) -> module of (x).
      dtype: type of the computation.
    """

    heads: int
    attention: Callable[..., nn.Module] = partial(SelfAttention, qkv=partial(QKV, bias=False))
    mlp: Callable[..., nn.Module] = partial(MLP, activation=partial(nn.gelu, approximate=False))
    norm: Callable[..., nn.Module] = affine_norm
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, h: Array, context: BlockContext) -> Array:
        """h (B, T, D) to its shape."""
        attend = self.attention(heads=self.heads, dtype=self.dtype, name="attention")
        h = h + attend(self.norm(name="norm_attention")(h), context)
        return h + self.mlp(dtype=self.dtype, name="mlp")(self.norm(name="norm_mlp")(h))


class LinearSkip(nn.Module):
    """A dense layer of both, side by side: the best of Bao et al. 2023, section 3.1.

    Attributes:
      dtype: type of the computation.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, h: Array, skip: Array) -> Array:
        """h and an earlier one (B, T, D) to their shape."""
        return dense(h.shape[-1], self.dtype, name="out")(jnp.concatenate([h, skip], axis=-1))


def no_skip(name: str, dtype: Dtype):
    """No long skip: conditions in context alone (Peebles & Xie 2023, section 3.2)."""
    return lambda h, skip: h


class SkipBlock(nn.Module):
    """A block on the sum of what is before it and what left its counterpart.

    Attributes:
      block: makes the block: (name) -> module of (h, context).
      skip: makes the join: (dtype, name) -> module of (h, skip).
      dtype: type of the computation.
    """

    block: Callable[..., nn.Module]
    skip: Callable[..., nn.Module]
    dtype: Dtype

    @nn.compact
    def __call__(self, h: Array, skip: Array, context: BlockContext) -> Array:
        """h and an earlier one (B, T, D) to their shape."""
        h = self.skip(dtype=self.dtype, name="skip")(h, skip)
        return self.block(name="block")(h, context)


class UViT(nn.Module):
    """Bao et al. 2023: time, label, text and patches as tokens of one plain transformer.

    Attributes:
      width: channels of a token.
      depth: number of blocks, odd: as many after the middle one as before it.
      heads: attention heads, a divisor of the width.
      patch_size: height and width of a patch.
      num_classes: size of the label set; the label `num_classes` is the null label.
        0 is without labels.
      null_label: whether the table of labels has a row for the null label.
      out_channels: None for as many as the input.
      block: makes a block: (heads, dtype, name) -> module of (h, context).
      skip: makes what joins the halves: (dtype, name) -> module of (h, skip), or `no_skip`.
      conv: whether a 3x3 convolution over the pixels comes last.
      remat: recompute blocks in the backward pass to save memory.
      scan_blocks: compile one block for each half; see `stack_blocks`.
      dtype: type of the computation, float32 or bfloat16; the output is float32.
    """

    width: int = 512
    depth: int = 13
    heads: int = 8
    patch_size: int = 2
    num_classes: int = 0
    null_label: bool = True
    out_channels: int | None = None
    block: Callable[..., nn.Module] = PlainBlock
    skip: Callable[..., nn.Module] = LinearSkip
    conv: bool = True
    remat: bool = False
    scan_blocks: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, H, W, C), t (B,) in steps, cond {"label": (B,)} and/or tokens -> (B, H, W, out).

        cond["tokens"] (B, L, E) are tokens like any other, where cond["token_mask"] allows.
        """
        if self.depth % 2 == 0:
            raise InputError(f"UViT expects an odd depth; got {self.depth}.")
        check_patches(self, x, t)
        _, height, width, channels = x.shape
        patches = dense(self.width, self.dtype, name="patches")(patchify(x, self.patch_size))
        extra = self.conditions(t, cond)
        h = jnp.concatenate([extra, patches], axis=1)
        position = self.param("position", small, (1, *h.shape[1:]))
        h, context = (
            h + position.astype(self.dtype),
            self.block_context(h, extra.shape[1], x.shape, cond),
        )
        make = partial(self.block, heads=self.heads, dtype=self.dtype)
        options = {"remat": self.remat, "scan": self.scan_blocks}

        def forth(block, h, _):
            h = block(h, context)
            return h, h

        def back(block, h, skip):
            return block(h, skip, context), None

        h, skips = repeat(make, forth, h, self.depth // 2, name="in_block_", **options)
        h = make(name="middle")(h, context)
        joined = partial(SkipBlock, make, self.skip, self.dtype)
        h, _ = repeat(
            joined, back, h, self.depth // 2, inputs=skips[::-1], name="out_block_", **options
        )
        h = affine_norm(name="norm")(h)[:, extra.shape[1] :]
        features = self.out_channels or channels
        wide = jnp.promote_types(self.dtype, jnp.float32)
        out = dense(self.patch_size**2 * features, self.dtype if self.conv else wide, name="out")
        h = unpatchify(out(h), height, width, self.patch_size)
        if not self.conv:
            return h
        return nn.Conv(features, (3, 3), dtype=wide, name="conv_out")(h)

    def conditions(self, t: Array, cond: Cond) -> Array:
        """Time, then label and text where there are any, as tokens (B, n, width)."""
        tokens = [sinusoidal_embedding(t, self.width).astype(self.dtype)[:, None]]
        if self.num_classes:
            table = LabelEmbedding(
                self.num_classes, self.width, self.null_label, self.dtype, name="label"
            )
            tokens.append(table(cond)[:, None])
        if cond and "tokens" in cond:
            tokens.append(dense(self.width, self.dtype, name="text")(cond["tokens"]))
        return jnp.concatenate(tokens, axis=1)

    def block_context(
        self, h: Array, extra: int, shape: tuple[int, ...], cond: Cond
    ) -> BlockContext:
        """Positions of the tokens, those of conditions at 0, and which of them are seen."""
        grid = cells(shape[1] // self.patch_size, shape[2] // self.patch_size)
        where = Cells(*(np.pad(coordinate, (extra, 0)) for coordinate in grid))
        if not cond or cond.get("token_mask") is None:
            return BlockContext(where=where)
        text = cond["token_mask"].astype(bool)
        first, rest = extra - text.shape[1], h.shape[1] - extra
        return BlockContext(
            where=where, mask=jnp.pad(text, ((0, 0), (first, rest)), constant_values=True)
        )
