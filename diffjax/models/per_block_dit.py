"""DiT in the form of diffusers, where every block embeds time and label by itself."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.dit import Block, Final
from diffjax.models.layers import Dtype
from diffjax.models.patches import Embedding, patchify, unpatchify
from diffjax.models.position import Cells, cells, sincos_2d
from diffjax.models.stacking import repeat
from diffjax.models.transformer import Given, dense
from diffjax.types import Array, Cond


class EmbeddingBlock(nn.Module):
    """A block with its own embedding of time and label.

    Attributes:
      block: makes the block: (heads, dtype, name) -> module of (h, given).
      embed: makes the embedding: (dtype, name) -> module of (t, cond).
      heads: number of attention heads.
      dtype: type of the computation.
    """

    block: Callable[..., nn.Module]
    embed: Callable[..., nn.Module]
    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, h: Array, where: Cells, t: Array, cond: Cond) -> tuple[Array, Array]:
        """h (B, T, D) to (its shape, the embedding (B, D))."""
        embedding = self.embed(dtype=self.dtype, name="embedding")(t, cond)
        block = self.block(heads=self.heads, dtype=self.dtype, name="block")
        return block(h, Given(embedding, where)), embedding


class PerBlockDiT(nn.Module):
    """`DiT` as diffusers has it: an embedding per block, the first one also for the output.

    Weights converted from DiT hold the same embedding in every block; weights trained in
    diffusers need not. The time embedding's slowest frequency is exactly 1/10000, where it
    is a little faster in `DiT`.

    Attributes:
      width, depth, heads, patch_size, num_classes, null_label, block, position, remat,
        scan_blocks, dtype: as in `DiT`.
      out_channels: of the output; twice those of the input for a learned variance.
    """

    width: int = 1152
    depth: int = 28
    heads: int = 16
    patch_size: int = 2
    num_classes: int = 1000
    null_label: bool = True
    out_channels: int = 8
    block: Callable[..., nn.Module] = Block
    position: Callable[[Cells, int], Array] = sincos_2d
    remat: bool = False
    scan_blocks: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, H, W, C), t (B,) in steps, cond {"label": (B,)} -> (B, H, W, out_channels)."""
        _, height, width, _ = x.shape
        where = cells(height // self.patch_size, width // self.patch_size)
        h = dense(self.width, self.dtype, name="patches")(patchify(x, self.patch_size))
        h = h + jnp.asarray(self.position(where, self.width), self.dtype)[None]
        embed = partial(Embedding, self.width, self.num_classes, self.null_label, shift=1.0)
        h, embeddings = repeat(
            partial(EmbeddingBlock, self.block, embed, self.heads, self.dtype),
            lambda block, h, _: block(h, where, t, cond),
            h,
            self.depth,
            remat=self.remat,
            scan=self.scan_blocks,
        )
        features = self.patch_size**2 * self.out_channels
        h = Final(features, dtype=self.dtype, name="final")(h, embeddings[0])
        return unpatchify(h, height, width, self.patch_size)
