"""DiT in the form of diffusers, where every block embeds time and label by itself."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.dit import DiT
from diffjax.models.layers import Dtype
from diffjax.models.patches import Embedding
from diffjax.models.position import Cells
from diffjax.models.stacking import plus
from diffjax.models.transformer import BlockContext
from diffjax.types import Array, Cond


class EmbeddingBlock(nn.Module):
    """A block with its own embedding of time and label.

    Attributes:
      block: makes the block: (heads, dtype, name) -> module of (h, context).
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
        return block(h, BlockContext(embedding, where)), embedding


class PerBlockDiT(DiT):
    """`DiT` with an embedding per block, the first of which the output reads too.

    Weights converted from DiT hold the same embedding in every block; weights trained in
    diffusers need not. The time embedding's slowest frequency is exactly 1/10000, where it
    is a little faster in `DiT`. `out_channels` says the output; `learn_sigma` is not read.
    """

    out_channels: int | None = 8

    def blocks(self, h: Array, where: Cells, t: Array, cond: Cond) -> tuple[Array, Array]:
        """All blocks: (h, the first block's embedding)."""
        embed = partial(Embedding, self.width, self.num_classes, self.null_label, shift=1.0)

        def step(block, h, residual):
            h, embedding = block(h, where, t, cond)
            return plus(h, residual), embedding

        make = partial(EmbeddingBlock, self.block, embed, self.heads, self.dtype)
        h, embeddings = self.repeat(make, step, h, cond)
        return h, embeddings[0]
