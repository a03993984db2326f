"""BERT (Devlin et al. 2019), and the sentence embedding that MiniLM's weights are used for."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.softmax import mask_bias
from diffjax.models.text.encoding import (
    Encoding,
    biased_attention,
    exact_gelu,
    heads_of,
)
from diffjax.models.transformer import dense
from diffjax.types import Array


class BertBlock(nn.Module):
    """Attention and MLP, each followed by the norm of its sum with its input.

    Attributes:
      heads: number of heads.
      hidden: width of the MLP.
      activation: of the MLP.
      epsilon: of the norms.
    """

    heads: int
    hidden: int
    activation: Callable[[Array], Array]
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, bias: Array | None) -> Array:
        """x (B, L, D) to its shape."""
        width = x.shape[-1]
        layers = (dense(width, x.dtype, name=name)(x) for name in ("query", "key", "value"))
        h = biased_attention(*(heads_of(h, self.heads) for h in layers), bias)
        h = dense(width, x.dtype, name="attention_out")(h)
        x = nn.LayerNorm(self.epsilon, name="attention_norm")(x + h)
        h = self.activation(dense(self.hidden, x.dtype, name="intermediate")(x))
        h = dense(width, x.dtype, name="out")(h)
        return nn.LayerNorm(self.epsilon, name="out_norm")(x + h)


class Bert(nn.Module):
    """The encoder of BERT.

    Attributes:
      vocabulary: number of tokens.
      length: the most tokens of a text.
      width: D.
      depth: number of blocks.
      heads: number of heads.
      hidden: width of the MLPs.
      types: kinds of segments; all tokens are of the first.
      activation: of the MLPs.
      pooler: whether the file has a layer for the first token.
      epsilon: of the norms.
    """

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    hidden: int
    types: int = 2
    activation: Callable[[Array], Array] = exact_gelu
    pooler: bool = True
    epsilon: float = 1e-12

    @nn.compact
    def __call__(self, ids: Array, mask: Array | None = None) -> Encoding:
        """ids (B, L) int, mask (B, L) 1 at tokens and 0 at padding -> states and embedding.

        The embedding is the mean of the last states over the mask, of length 1: Reimers &
        Gurevych 2019.
        """
        if ids.shape[1] > self.length:
            raise InputError(f"expected at most {self.length} tokens; got {ids.shape[1]}.")
        x = nn.Embed(self.vocabulary, self.width, name="word_embeddings")(ids)
        places = nn.Embed(self.length, self.width, name="position_embeddings")
        kinds = nn.Embed(self.types, self.width, name="token_type_embeddings")
        x = x + (places(jnp.arange(ids.shape[1])) + kinds(jnp.zeros((1,), int)))[None]
        x, bias = nn.LayerNorm(self.epsilon, name="embeddings_norm")(x), mask_bias(mask)
        hidden = [x]
        for i in range(self.depth):
            kind = (self.heads, self.hidden, self.activation, self.epsilon)
            x = BertBlock(*kind, name=f"layer_{i}")(x, bias)
            hidden.append(x)
        pooled = (
            jnp.tanh(dense(self.width, x.dtype, name="pooler")(x[:, 0])) if self.pooler else None
        )
        return Encoding(x, hidden[-2], pooled, embedding=mean_of(x, mask), hidden=tuple(hidden))


def mean_of(x: Array, mask: Array | None) -> Array:
    """The mean of x (B, L, D) over the mask (B, L), over its length: (B, D)."""
    weights = jnp.ones(x.shape[:2], x.dtype) if mask is None else mask.astype(x.dtype)
    mean = jnp.sum(x * weights[..., None], 1) / jnp.maximum(weights.sum(1, keepdims=True), 1e-9)
    return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
