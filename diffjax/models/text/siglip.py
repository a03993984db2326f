"""SigLIP's vision tower (Zhai et al. 2023), pooled by the attention of a learned query."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.text.clip import patches_of
from diffjax.models.text.encoding import (
    EncoderBlock,
    Encoding,
    Mlp,
    biased_attention,
    heads_of,
    tanh_gelu,
)
from diffjax.models.transformer import dense
from diffjax.types import Array


class SiglipVision(nn.Module):
    """A transformer over patches without a class token.

    Attributes:
      image: height and width of a picture.
      patch: of a patch.
      width: D.
      depth: number of blocks.
      heads: number of heads.
      hidden: width of the MLPs.
      activation: of the MLPs.
      head: whether a learned query pools the states.
      epsilon: of the norms.
    """

    image: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    activation: Callable[[Array], Array] = tanh_gelu
    head: bool = True
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, pixels: Array) -> Encoding:
        """Normalised pixels (B, H, W, C) -> states after the last norm, and the pooled one."""
        x = patches_of(pixels, self.image, self.patch, self.width, True)
        places = nn.Embed(x.shape[1], self.width, name="position_embedding")
        x = x + places(jnp.arange(x.shape[1]))[None]
        hidden = [x]
        for i in range(self.depth):
            kind = (self.heads, self.hidden, self.activation, self.epsilon)
            x = EncoderBlock(*kind, name=f"layers_{i}")(x, None)
            hidden.append(x)
        last = nn.LayerNorm(self.epsilon, name="post_layernorm")(x)
        pooled = None
        if self.head:
            kind = (self.heads, self.hidden, self.activation, self.epsilon)
            pooled = PoolingHead(*kind, name="head")(last)
        return Encoding(last, hidden[-2], pooled, hidden=tuple(hidden))


class PoolingHead(nn.Module):
    """Attention of one learned query to all states, and an MLP."""

    heads: int
    hidden: int
    activation: Callable[[Array], Array]
    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, T, D) to (B, D)."""
        width = x.shape[-1]
        probe = self.param("probe", nn.initializers.normal(0.02), (1, 1, width))
        probe = jnp.broadcast_to(probe, (x.shape[0], 1, width))
        layer = dense(3 * width, x.dtype, name="in_proj")
        q, (k, v) = layer(probe)[..., :width], jnp.split(layer(x)[..., width:], 2, axis=-1)
        h = biased_attention(*(heads_of(a, self.heads) for a in (q, k, v)))
        h = dense(width, x.dtype, name="attention_out_proj")(h)
        mlp = Mlp(self.hidden, self.activation, name="mlp")
        return (h + mlp(nn.LayerNorm(self.epsilon, name="layernorm")(h)))[:, 0]
