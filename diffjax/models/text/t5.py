"""The encoder of T5 v1.1 (Raffel et al. 2020; Shazeer 2020) and of UMT5 (Chung et al. 2023)."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.models.softmax import mask_bias
from diffjax.models.text.encoding import (
    Encoding,
    biased_attention,
    heads_of,
    tanh_gelu,
)
from diffjax.models.transformer import dense
from diffjax.types import Array


def relative_buckets(length: int, buckets: int, furthest: int) -> np.ndarray:
    """The bucket of each pair's distance (L, L): Raffel et al. 2020, section 2.1, released code.

    Half of the buckets are for keys after the query. Of each half, half are exact distances, and
    the others grow logarithmically up to `furthest`.
    """
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    half, far = buckets // 2, np.abs(distance)
    exact = half // 2
    log = np.log(np.maximum(far, 1).astype(np.float32) / exact) / np.log(furthest / exact)
    large = np.minimum(exact + (log * (half - exact)).astype(int), half - 1)
    return half * (distance > 0) + np.where(far < exact, far, large)


class T5Norm(nn.Module):
    """x over its root mean square, times a scale: no mean and no bias."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., D) to its shape, in float32 inside."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        h = x.astype(jnp.float32)
        h = h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + self.epsilon)
        return (h * jnp.broadcast_to(scale, h.shape)).astype(x.dtype)


class T5Block(nn.Module):
    """Norm, attention, norm, MLP, both residual, without any bias.

    Attributes:
      heads: number of heads.
      head_width: width of each.
      hidden: width of the MLP.
      activation: of the MLP.
      gated: whether the MLP has a gate.
      epsilon: of the norms.
    """

    heads: int
    head_width: int
    hidden: int
    activation: Callable[[Array], Array]
    gated: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, bias: Array) -> Array:
        """x (B, L, D) to its shape; bias (B, heads, L, L) of the logits, which have no scale."""

        def linear(width, name):
            return dense(width, x.dtype, use_bias=False, name=name)

        h = T5Norm(self.epsilon, name="attention_norm")(x)
        inner = self.heads * self.head_width
        q, k, v = (heads_of(linear(inner, letter)(h), self.heads) for letter in "qkv")
        x = x + linear(x.shape[-1], "o")(biased_attention(q, k, v, bias, 1.0))
        h = T5Norm(self.epsilon, name="mlp_norm")(x)
        if self.gated:
            h = self.activation(linear(self.hidden, "wi_0")(h)) * linear(self.hidden, "wi_1")(h)
        else:
            h = self.activation(linear(self.hidden, "wi")(h))
        return x + linear(x.shape[-1], "wo")(h)


class T5Encoder(nn.Module):
    """T5's encoder, whose attention knows positions by a learned bias of the distance.

    Attributes:
      vocabulary: number of tokens.
      width: D.
      depth: number of blocks.
      heads: number of heads.
      head_width: width of each.
      hidden: width of the MLPs.
      activation: of the MLPs.
      gated: whether the MLPs have a gate (v1.1).
      buckets: of distances.
      furthest: the distance from which on all share a bucket.
      own_bias: whether each block has its own bias (UMT5) or all that of the first.
      epsilon: of the norms.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    head_width: int
    hidden: int
    activation: Callable[[Array], Array] = tanh_gelu
    gated: bool = True
    buckets: int = 32
    furthest: int = 128
    own_bias: bool = False
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, ids: Array, mask: Array | None = None) -> Encoding:
        """ids (B, L) int, mask (B, L) 1 at tokens and 0 at padding -> its states."""
        x = nn.Embed(self.vocabulary, self.width, name="shared")(ids)
        table = relative_buckets(ids.shape[1], self.buckets, self.furthest)
        hidden, hide, bias = [x], mask_bias(mask), None
        for i in range(self.depth):
            if i == 0 or self.own_bias:
                places = nn.Embed(self.buckets, self.heads, name=f"bias_{i}")
                bias = places(table).transpose(2, 0, 1)[None]
                bias = bias if hide is None else bias + hide
            kind = (self.heads, self.head_width, self.hidden, self.activation, self.gated)
            x = T5Block(*kind, self.epsilon, name=f"block_{i}")(x, bias)
            hidden.append(x)
        last = T5Norm(self.epsilon, name="final_layer_norm")(x)
        return Encoding(last, hidden[-2], hidden=tuple(hidden))
