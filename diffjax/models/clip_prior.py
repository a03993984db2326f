"""unCLIP's prior (Ramesh et al. 2022): a causal transformer from a text to a picture's embedding.

Layers have the names that its published files use.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.layers import sinusoidal_embedding
from diffjax.models.published_layers import TwoLayers, needed
from diffjax.models.stacking import repeat
from diffjax.models.text.encoding import biased_attention, exact_gelu, heads_of
from diffjax.models.transformer import dense
from diffjax.types import Array, Cond

HIDE = -10_000.0  # added to a hidden key's logit, as in the released files


class PriorBlock(nn.Module):
    """norm, attention, norm, MLP, both residual."""

    heads: int

    @nn.compact
    def __call__(self, x: Array, bias: Array) -> Array:
        """x (B, T, D) to its shape."""
        width = x.shape[-1]
        h = nn.LayerNorm(1e-5, name="norm1")(x)
        layers = [dense(width, x.dtype, name=f"attn1.to_{letter}")(h) for letter in "qkv"]
        h = biased_attention(*(heads_of(h, self.heads) for h in layers), bias)
        x = x + dense(width, x.dtype, name="attn1.to_out.0")(h)
        h = nn.LayerNorm(1e-5, name="norm3")(x)
        h = exact_gelu(dense(4 * width, x.dtype, name="ff.net.0.proj")(h))
        return x + dense(width, x.dtype, name="ff.net.2")(h)


class ClipPrior(nn.Module):
    """It reads text states, pooled text, time and noisy embedding, and a learned query last.

    Attributes:
      heads: number of heads.
      width: D.
      depth: number of blocks.
      channels: of the embeddings.
      length: tokens of a text.
    """

    heads: int
    width: int
    depth: int
    channels: int
    length: int

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """The embedding (B, channels) without noise.

        Args:
          x: noisy embeddings (B, channels).
          t: times (B,) in steps.
          cond: `tokens` (B, length, channels), `vector` (B, channels), and perhaps
            `token_mask` (B, length).
          train: no effect.
        """

        def linear(x, name, width=self.width):
            return dense(width, x.dtype, name=name)(x)

        self.param("clip_mean", nn.initializers.zeros, (1, self.channels))
        self.param("clip_std", nn.initializers.ones, (1, self.channels))
        small = nn.initializers.normal(0.02)
        query = self.param("prd_embedding", small, (1, 1, self.width))
        places = self.param("positional_embedding", small, (1, self.length + 4, self.width))
        time = TwoLayers(self.width, name="time_embedding")(sinusoidal_embedding(t, self.width))
        text = linear(needed(cond, "tokens", "the prior"), "encoder_hidden_states_proj")
        pooled = linear(needed(cond, "vector", "the prior"), "embedding_proj")
        own = [h[:, None] for h in (pooled, time, linear(x, "proj_in"))]
        query = jnp.broadcast_to(query, (x.shape[0], 1, self.width))
        h = jnp.concatenate([text, *own, query], axis=1) + places
        n = h.shape[1]
        bias = jnp.where(jnp.tril(jnp.ones((n, n), bool)), 0.0, HIDE)[None, None]
        if "token_mask" in cond:
            mask = jnp.pad(cond["token_mask"].astype(float), ((0, 0), (0, 4)), constant_values=1)
            bias = bias + HIDE * (1 - mask[:, None, None, :])
        make, step = partial(PriorBlock, self.heads), lambda block, h, _: (block(h, bias), None)
        h, _ = repeat(make, step, h, self.depth, name="transformer_blocks.")
        h = nn.LayerNorm(1e-5, name="norm_out")(h)
        return linear(h[:, -1], "proj_to_clip_embeddings", self.channels)
