"""IP-Adapter (Ye et al. 2023): a picture's embedding as tokens that a U-Net attends to beside text.

Layers bear the names of the published files. The U-Net reads the tokens as cond["image_tokens"];
see `TransformerAttention.images`.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.stacking import repeat
from diffjax.models.text.encoding import biased_attention, exact_gelu, heads_of
from diffjax.models.transformer import dense
from diffjax.types import Array


class ImageTokens(nn.Module):
    """A few tokens of one embedding: norm(linear(embedding)), section 3.2.1.

    Attributes:
      tokens: their number.
      width: of each, as the U-Net's text tokens.
    """

    tokens: int
    width: int

    @nn.compact
    def __call__(self, embedding: Array) -> Array:
        """embedding (B, E) of a CLIP vision encoder to (B, tokens, width)."""
        h = dense(self.tokens * self.width, embedding.dtype, name="proj")(embedding)
        return nn.LayerNorm(1e-5, name="norm")(h.reshape(len(h), self.tokens, self.width))


class ResamplerBlock(nn.Module):
    """Attention of the queries to the picture and themselves, and a feed-forward, both residual.

    Attributes:
      heads: number of heads.
      head_width: channels of each.
      hidden: width between the layers of the feed-forward.
    """

    heads: int
    head_width: int
    hidden: int

    @nn.compact
    def __call__(self, x: Array, queries: Array) -> Array:
        """x (B, L, D) and queries (B, T, D) to the queries' shape."""

        def linear(h, features, name):
            return dense(features, h.dtype, use_bias=False, name=name)(h)

        width, inner = queries.shape[-1], self.heads * self.head_width
        own = nn.LayerNorm(1e-5, name="ln1")(queries)
        both = jnp.concatenate([nn.LayerNorm(1e-5, name="ln0")(x), own], axis=1)
        q = linear(own, inner, "attn.to_q")
        k, v = (linear(both, inner, f"attn.to_{name}") for name in "kv")
        h = biased_attention(*(heads_of(h, self.heads) for h in (q, k, v)))
        queries = queries + linear(h, width, "attn.to_out.0")
        h = nn.LayerNorm(1e-5, name="ff.0")(queries)
        h = exact_gelu(linear(h, self.hidden, "ff.1.net.0.proj"))
        return queries + linear(h, width, "ff.1.net.2")


class Resampler(nn.Module):
    """Learned queries read all states of a vision encoder: the projection of IP-Adapter Plus.

    Attributes:
      queries: their number.
      hidden: D.
      width: of the resulting tokens.
      depth: number of blocks.
      heads: of each block.
      head_width: channels of a head.
      ratio: width of the feed-forward over D.
    """

    queries: int
    hidden: int
    width: int
    depth: int
    heads: int
    head_width: int
    ratio: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """States (B, L, E) of a CLIP vision encoder to tokens (B, queries, width)."""
        small = nn.initializers.normal(self.hidden**-0.5)
        queries = self.param("latents", small, (1, self.queries, self.hidden))
        queries = jnp.broadcast_to(queries, (len(x), *queries.shape[1:]))
        x = dense(self.hidden, x.dtype, name="proj_in")(x)
        sizes = (self.heads, self.head_width, int(self.ratio * self.hidden))
        step = lambda block, queries, _: (block(x, queries), None)  # noqa: E731
        make = partial(ResamplerBlock, *sizes)
        queries, _ = repeat(make, step, queries, self.depth, name="layers.")
        h = dense(self.width, x.dtype, name="proj_out")(queries)
        return nn.LayerNorm(1e-5, name="norm_out")(h)
