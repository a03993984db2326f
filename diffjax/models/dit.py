"""The diffusion transformer DiT (Peebles & Xie 2023), and its sizes by their published names."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.layers import Dtype
from diffjax.models.patches import Embedding, check_patches, patchify, unpatchify
from diffjax.models.position import Cells, cells, sincos_2d
from diffjax.models.stacking import plus, repeat, spread
from diffjax.models.transformer import (
    MLP,
    BlockContext,
    CrossAttention,
    LayerNorm,
    SelfAttention,
    dense,
    zeros,
)
from diffjax.types import Array, Cond


def modulation(embedding: Array, pieces: int, dtype: Dtype, width: int) -> list[Array]:
    """Scales, shifts and gates (B, 1, width) of an embedding (B, D), zero at first: adaLN-zero.

    To be called in a compact method; the layer is `modulation`.
    """
    layer = dense(pieces * width, dtype, kernel_init=zeros, name="modulation")
    return jnp.split(layer(nn.silu(embedding))[:, None, :], pieces, axis=-1)


class DiTBlock(nn.Module):
    """Attention and MLP, each under adaLN-zero: Peebles & Xie 2023, section 3.2 and Figure 3.

    h + gate f(norm(h) (1 + scale) + shift), where shift, scale and gate are linear in the
    embedding of time and label, and zero at first: a new block is the identity.

    Attributes:
      heads: number of attention heads.
      attention: makes the attention: (heads, dtype, name) -> module of (x, context).
      mlp: makes the MLP: (dtype, name) -> module of (x).
      norm: makes the norm before attention: (name) -> module of (x).
      mlp_norm: makes the norm before the MLP; None for the same.
      dtype: type of the computation.
    """

    heads: int
    attention: Callable[..., nn.Module] = SelfAttention
    mlp: Callable[..., nn.Module] = MLP
    norm: Callable[..., nn.Module] = LayerNorm
    mlp_norm: Callable[..., nn.Module] | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, h: Array, context: BlockContext) -> Array:
        """h (B, T, D) to its shape."""
        parts = modulation(context.embedding, 6, self.dtype, h.shape[-1])
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        x = self.norm(name="norm_attention")(h) * (1 + scale) + shift
        attend = self.attention(heads=self.heads, dtype=self.dtype, name="attention")
        h = self.between(h + gate * attend(x, context), context)
        x = (self.mlp_norm or self.norm)(name="norm_mlp")(h) * (1 + mlp_scale) + mlp_shift
        return h + mlp_gate * self.mlp(dtype=self.dtype, name="mlp")(x)

    def between(self, h: Array, context: BlockContext) -> Array:
        """What comes between attention and MLP: nothing."""
        return h


class CrossBlock(DiTBlock):
    """A block with attention to cond["tokens"] before its MLP: Peebles & Xie 2023, section 3.2.

    As in PixArt-alpha (Chen et al. 2024), its input is neither normalised nor modulated.

    Attributes:
      cross: makes the attention: (heads, dtype, name) -> module of (x, context).
    """

    cross: Callable[..., nn.Module] = CrossAttention

    def between(self, h: Array, context: BlockContext) -> Array:
        """Attention to the tokens of the condition."""
        return h + self.cross(heads=self.heads, dtype=self.dtype, name="cross")(h, context)


class Final(nn.Module):
    """Modulated norm and a dense layer to patches, zero at first, in float32.

    Attributes:
      features: numbers per patch.
      norm: makes the norm.
      dtype: type of the computation of the modulation.
    """

    features: int
    norm: Callable[..., nn.Module] = LayerNorm
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, h: Array, embedding: Array) -> Array:
        """h (B, T, D) to (B, T, features)."""
        shift, scale = modulation(embedding, 2, self.dtype, h.shape[-1])
        h = self.norm(name="norm")(h) * (1 + scale) + shift
        wide = jnp.promote_types(self.dtype, jnp.float32)
        return dense(self.features, wide, kernel_init=zeros, name="out")(h)


class DiT(nn.Module):
    """Peebles & Xie 2023: patches, fixed positions, blocks under adaLN-zero, patches.

    Attributes:
      width: channels of a token, divisible by 4.
      depth: number of blocks.
      heads: attention heads, a divisor of the width.
      patch_size: height and width of a patch.
      num_classes: size of the label set; the label `num_classes` is the null label.
        0 is without labels.
      null_label: whether the table of labels has a row for the null label.
      learn_sigma: whether the output has twice the channels of the input, the second half
        for the variance.
      out_channels: of the output; None for what `learn_sigma` says.
      block: makes a block: (heads, dtype, name) -> module of (h, context), such as
        `partial(DiTBlock, norm=RMSNorm, mlp=SwiGLU)` or `CrossBlock`.
      position: (cells, width) -> table (T, width) that is added to the patches.
      norm: makes the last norm.
      remat: recompute blocks in the backward pass to save memory.
      scan_blocks: compile one block for all; see `stack_blocks`.
      dtype: type of the computation, float32 or bfloat16; the output is float32.
    """

    width: int = 1152
    depth: int = 28
    heads: int = 16
    patch_size: int = 2
    num_classes: int = 1000
    null_label: bool = True
    learn_sigma: bool = True
    block: Callable[..., nn.Module] = DiTBlock
    position: Callable[[Cells, int], Array] = sincos_2d
    norm: Callable[..., nn.Module] = LayerNorm
    remat: bool = False
    scan_blocks: bool = False
    dtype: Dtype = jnp.float32
    out_channels: int | None = None

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, H, W, C), t (B,) in steps, cond {"label": (B,)} -> (B, H, W, C or 2 C).

        A block may also use cond["tokens"] (B, L, E) and cond["token_mask"] (B, L). To what
        leaves the blocks cond["residuals"] of a ControlNet are added, see `stacking.spread`.
        """
        h, where = self.tokens(x, t)
        _, height, width, channels = x.shape
        h, embedding = self.blocks(h, where, t, cond)
        outputs = self.out_channels or channels * (1 + self.learn_sigma)
        features = self.patch_size**2 * outputs
        h = Final(features, self.norm, self.dtype, name="final")(h, embedding)
        return unpatchify(h, height, width, self.patch_size)

    def tokens(self, x: Array, t: Array) -> tuple[Array, Cells]:
        """Patches with their positions added, (B, T, D), and their cells; in a compact method."""
        check_patches(self, x, t)
        where = cells(x.shape[1] // self.patch_size, x.shape[2] // self.patch_size)
        h = dense(self.width, self.dtype, name="patches")(patchify(x, self.patch_size))
        return h + jnp.asarray(self.position(where, self.width), self.dtype)[None], where

    def context(self, where: Cells, t: Array, cond: Cond) -> BlockContext:
        """What every block sees; in a compact method."""
        embed = Embedding(
            self.width, self.num_classes, self.null_label, dtype=self.dtype, name="embedding"
        )
        tokens = (cond or {}).get("tokens"), (cond or {}).get("token_mask")
        return BlockContext(embed(t, cond), where, *tokens)

    def blocks(self, h: Array, where: Cells, t: Array, cond: Cond) -> tuple[Array, Array]:
        """All blocks under one embedding of the conditions: (h, the embedding (B, D))."""
        context = self.context(where, t, cond)
        make = partial(self.block, heads=self.heads, dtype=self.dtype)
        step = lambda block, h, residual: (plus(block(h, context), residual), None)  # noqa: E731
        return self.repeat(make, step, h, cond)[0], context.embedding

    def repeat(
        self, make: Callable, step: Callable, h: Array, cond: Cond = None
    ) -> tuple[Array, Any]:
        """`stacking.repeat` with this network's depth and options, and the residuals of cond."""
        residuals = spread(cond, h, self.depth, scan=self.scan_blocks)
        options = {"remat": self.remat, "scan": self.scan_blocks}
        return repeat(make, step, h, self.depth, inputs=residuals, **options)


def dit_s(patch_size: int, **overrides) -> DiT:
    """DiT-S: 12 blocks of width 384. `overrides` are any attributes of `DiT`."""
    return DiT(**{"width": 384, "depth": 12, "heads": 6, "patch_size": patch_size, **overrides})


def dit_b(patch_size: int, **overrides) -> DiT:
    """DiT-B: 12 blocks of width 768. `overrides` are any attributes of `DiT`."""
    return DiT(**{"width": 768, "depth": 12, "heads": 12, "patch_size": patch_size, **overrides})


def dit_l(patch_size: int, **overrides) -> DiT:
    """DiT-L: 24 blocks of width 1024. `overrides` are any attributes of `DiT`."""
    return DiT(**{"width": 1024, "depth": 24, "heads": 16, "patch_size": patch_size, **overrides})


def dit_xl(patch_size: int, **overrides) -> DiT:
    """DiT-XL: 28 blocks of width 1152. `overrides` are any attributes of `DiT`."""
    return DiT(**{"width": 1152, "depth": 28, "heads": 16, "patch_size": patch_size, **overrides})


dit_s_2, dit_s_4, dit_s_8 = (partial(dit_s, patch_size=size) for size in (2, 4, 8))
dit_b_2, dit_b_4, dit_b_8 = (partial(dit_b, patch_size=size) for size in (2, 4, 8))
dit_l_2, dit_l_4, dit_l_8 = (partial(dit_l, patch_size=size) for size in (2, 4, 8))
dit_xl_2, dit_xl_4, dit_xl_8 = (partial(dit_xl, patch_size=size) for size in (2, 4, 8))
