"""A residual MLP for data of few dimensions."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.checks import check_channels, check_rank
from diffjax.models.dit import modulation
from diffjax.models.layers import Dtype
from diffjax.models.patches import Embedding
from diffjax.models.stacking import repeat
from diffjax.models.transformer import MLP, LayerNorm, dense, zeros
from diffjax.types import Array, Cond


class MLPBlock(nn.Module):
    """h + gate mlp(norm(h) (1 + scale) + shift), modulated by the embedding, identity at first.

    Attributes:
      ratio: hidden width over that of h.
      dtype: type of the computation.
    """

    ratio: float
    dtype: Dtype

    @nn.compact
    def __call__(self, h: Array, embedding: Array) -> Array:
        """h (B, 1, D) and embedding (B, D) to h's shape."""
        shift, scale, gate = modulation(embedding, 3, self.dtype, h.shape[-1])
        x = LayerNorm(name="norm")(h) * (1 + scale) + shift
        return h + gate * MLP(self.ratio, nn.silu, self.dtype, name="mlp")(x)


class ResidualMLP(nn.Module):
    """Residual MLP over vectors, conditioned on time and optionally on a label.

    Attributes:
      width: of the hidden state.
      depth: number of residual blocks.
      ratio: hidden width of a block over `width`.
      num_classes: size of the label set; the label `num_classes` is the null label.
        0 is unconditional.
      out_features: None for as many as the input.
      remat: recompute blocks in the backward pass to save memory.
      scan_blocks: compile one block for all; see `stack_blocks`.
      dtype: type of the computation, float32 or bfloat16; the output is float32.
    """

    width: int = 128
    depth: int = 4
    ratio: float = 2.0
    num_classes: int = 0
    out_features: int | None = None
    remat: bool = False
    scan_blocks: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, D), t (B,) in steps, cond {"label": (B,)} or None -> (B, out_features)."""
        check_rank(type(self).__name__, x, t, 2, "vectors (B, D)")
        check_channels(self, x, "layer_in")
        embed = Embedding(self.width, self.num_classes, dtype=self.dtype, name="embedding")
        embedding = embed(t, cond)
        h, _ = repeat(
            partial(MLPBlock, self.ratio, self.dtype),
            lambda block, h, _: (block(h, embedding), None),
            dense(self.width, self.dtype, name="layer_in")(x)[:, None],
            self.depth,
            remat=self.remat,
            scan=self.scan_blocks,
        )
        wide = jnp.promote_types(self.dtype, jnp.float32)
        out = dense(self.out_features or x.shape[-1], wide, kernel_init=zeros, name="layer_out")
        return out(LayerNorm(affine=True, name="norm")(h))[:, 0]
