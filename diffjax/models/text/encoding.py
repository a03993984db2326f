"""What encoders share: their result, attention with a bias, and the block of CLIP."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.softmax import HIDDEN, softmax_attention
from diffjax.models.transformer import dense
from diffjax.types import Array


class Encoding(NamedTuple):
    """The outputs of an encoder; None where it has no such output.

    Attributes:
      last: (B, L, D), after the last norm where the reference's is.
      penultimate: (B, L, D), the states before the last block, without a norm.
      pooled: (B, D), one vector for each.
      text_embeds: (B, E), the projected vector of a text.
      image_embeds: (B, E), the projected vector of a picture.
      embedding: (B, D) of length 1, a sentence's.
      hidden: the states before every block and after the last, each (B, L, D).
    """

    last: Array
    penultimate: Array | None = None
    pooled: Array | None = None
    text_embeds: Array | None = None
    image_embeds: Array | None = None
    embedding: Array | None = None
    hidden: tuple[Array, ...] = ()


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x): Hendrycks & Gimpel 2016, section 2."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: Array) -> Array:
    """x Phi(x): Hendrycks & Gimpel 2016, Eq. 1."""
    return nn.gelu(x, approximate=False)


def tanh_gelu(x: Array) -> Array:
    """GELU in its tanh form: Hendrycks & Gimpel 2016, section 2."""
    return nn.gelu(x, approximate=True)


def biased_attention(
    q: Array, k: Array, v: Array, bias: Array | None = None, scale: Any = None
) -> Array:
    """`softmax_attention` with the heads side by side.

    Args:
      q: queries (B, T, heads, D).
      k: keys (B, S, heads, D).
      v: values (B, S, heads, D).
      bias: (B or 1, heads or 1, T, S), HIDDEN where a key is not to be seen.
      scale: None for 1/sqrt(D).

    Returns:
      (B, T, heads D).
    """
    h = softmax_attention(q, k, v, bias, scale)
    return h.reshape(*h.shape[:2], -1)


def causal_bias(length: int) -> Array:
    """(1, 1, L, L): HIDDEN for keys after the query."""
    return jnp.where(jnp.tril(jnp.ones((length, length), bool)), 0.0, HIDDEN)[None, None]


def heads_of(x: Array, heads: int) -> Array:
    """(B, T, heads D) -> (B, T, heads, D)."""
    if x.shape[-1] % heads:
        raise InputError(f"{heads} heads do not divide a width of {x.shape[-1]}.")
    return x.reshape(*x.shape[:2], heads, -1)


class Attention(nn.Module):
    """Self-attention with the layer names of CLIP's published files.

    Attributes:
      heads: number of heads; must divide D.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Array, bias: Array | None) -> Array:
        """x (B, T, D) to its shape."""
        layers = (dense(x.shape[-1], x.dtype, name=f"{letter}_proj")(x) for letter in "qkv")
        q, k, v = (heads_of(h, self.heads) for h in layers)
        return dense(x.shape[-1], x.dtype, name="out_proj")(biased_attention(q, k, v, bias))


class Mlp(nn.Module):
    """W2 f(W1 x) with the names of CLIP's files.

    Attributes:
      hidden: width between the two.
      activation: f.
    """

    hidden: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., D) to its shape."""
        h = self.activation(dense(self.hidden, x.dtype, name="fc1")(x))
        return dense(x.shape[-1], x.dtype, name="fc2")(h)


class EncoderBlock(nn.Module):
    """norm, attention, norm, MLP, both residual: the block of CLIP and of SigLIP.

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
        """x (B, T, D) to its shape."""
        h = nn.LayerNorm(self.epsilon, name="layer_norm1")(x)
        x = x + Attention(self.heads, name="self_attn")(h, bias)
        h = nn.LayerNorm(self.epsilon, name="layer_norm2")(x)
        return x + Mlp(self.hidden, self.activation, name="mlp")(h)
