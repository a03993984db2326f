"""Softmax attention by its formula, whose derivative keeps its weights alone."""

import math

import jax
import jax.numpy as jnp

from diffjax.types import Array

HIDDEN = -1e30  # added to a logit that is not to be seen; finite, so that no row is NaN


@jax.custom_jvp
def softmax(logits: Array) -> Array:
    """exp(l_i) / sum_j exp(l_j) over the last axis.

    The derivative is y (dl - sum(y dl)), of the result y alone: what else it took to compute is
    not kept for the backward pass.

    Args:
      logits: (..., S).

    Returns:
      Weights of the same shape.
    """
    unnormalised = jnp.exp(logits - logits.max(-1, keepdims=True))
    return unnormalised / unnormalised.sum(-1, keepdims=True)


@softmax.defjvp
def _softmax_derivative(primals, tangents):
    y = softmax(*primals)
    weighted = y * tangents[0]
    return y, weighted - y * weighted.sum(-1, keepdims=True)


def softmax_attention(
    q: Array, k: Array, v: Array, bias: Array | None = None, scale: float | None = None
) -> Array:
    """softmax(scale q k' + bias) v: Vaswani et al. 2017, Eq. 1.

    Logits and softmax are float32 at least; the weights are rounded to the type of the values.

    Args:
      q: queries (B, T, heads, D).
      k: keys (B, S, heads, D).
      v: values (B, S, heads, D).
      bias: (B or 1, heads or 1, T or 1, S), HIDDEN where a key is not to be seen.
      scale: None for 1/sqrt(D).

    Returns:
      (B, T, heads, D).
    """
    full = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=full)
    logits *= 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if bias is not None:
        logits += jnp.broadcast_to(bias, logits.shape)
    return jnp.einsum("bhts,bshd->bthd", softmax(logits).astype(v.dtype), v)


def mask_bias(mask: Array | None) -> Array | None:
    """(B, 1, 1, S): HIDDEN where the mask (B, S) is 0."""
    return None if mask is None else jnp.where(mask[:, None, None, :] > 0, 0.0, HIDDEN)
