"""Layers that several networks share: time embedding, group norm and attention.

Activations are NHWC or (B, T, C). Parameters are float32; computation is in the caller's
type, and norms and softmax are at least float32 whatever it is.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models import flash
from diffjax.models.softmax import mask_bias, softmax_attention
from diffjax.types import Array

Dtype = Any


def full(dtype: Dtype) -> Dtype:
    """The type of norms and outputs: float32, or float64 where the computation is."""
    return jnp.promote_types(dtype, jnp.float32)


def sinusoidal_embedding(
    t: Array, dim: int, max_period: float = 10_000.0, shift: float = 0.0
) -> Array:
    """cos and sin of t at `dim`/2 geometric frequencies: Vaswani et al. 2017, section 3.5.

    Frequency i of n is max_period^(-i/(n - shift)).

    Args:
      t: times (B,), in steps (0 to 1000).
      dim: even width.
      max_period: period of the slowest wave over 2 pi.
      shift: 1 where the slowest frequency is exactly 1/max_period (DDPM), 0 elsewhere.

    Returns:
      (B, dim) float32 (float64 of float64), the cosines first.
    """
    half = dim // 2
    t = t.astype(full(t.dtype))
    exponents = jnp.arange(half, dtype=t.dtype) / (half - shift)
    angles = t[:, None] * jnp.exp(-math.log(max_period) * exponents)[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


class GroupNorm(nn.Module):
    """Group normalisation in float32 (Wu & He 2018), cast back to the compute type.

    y = (x - mean) / sqrt(var + epsilon) scale + bias, with var = E[x^2] - mean^2. The moments are
    taken of each channel first and of its group then, and y is written as x a + b with a and b per
    channel: x is read once for the moments and once for y.

    Attributes:
      groups: number of groups, a divisor of the channels. None is 32, as the papers have it,
        and fewer where a group would have under 4 channels.
      epsilon: added to the variance.
    """

    groups: int | None = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        batch, channels = x.shape[0], x.shape[-1]
        groups = self.groups or math.gcd(32, max(channels // 4, 1))
        if channels % groups:
            raise InputError(f"{groups} groups do not divide {channels} channels; change one.")
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        flat = x.reshape(batch, -1, channels).astype(full(x.dtype))

        def of_group(moment):
            moment = moment.reshape(batch, groups, -1)
            return jnp.broadcast_to(moment.mean(2, keepdims=True), moment.shape).reshape(batch, -1)

        mean, square = of_group(flat.mean(axis=1)), of_group((flat**2).mean(axis=1))
        a = scale[None] * jax.lax.rsqrt(jnp.maximum(square - mean**2, 0) + self.epsilon)
        y = flat * a[:, None] + (bias[None] - mean * a)[:, None]
        return y.astype(x.dtype).reshape(x.shape)


_RULE: ContextVar[Callable | None] = ContextVar("attention", default=None)


@contextmanager
def attending(rule: Callable[..., Array]) -> Iterator[None]:
    """Attention in another way while a network is called: see `models.weakened`.

    Args:
      rule: (attend, q, k, v, mask) -> what `attention` returns; `attend` is the usual way.
    """
    token = _RULE.set(rule)
    try:
        yield
    finally:
        _RULE.reset(token)


def attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    """softmax(q k' / sqrt(D)) v: Vaswani et al. 2017, Eq. 1.

    Args:
      q: queries (B, T, heads, D).
      k: keys (B, S, heads, D).
      v: values (B, S, heads, D).
      mask: (B, S) bool, False where a key is not to be seen; every row needs one True.

    Returns:
      (B, T, heads D).
    """
    rule = _RULE.get()
    return rule(_attention, q, k, v, mask) if rule else _attention(q, k, v, mask)


def _attention(q, k, v, mask):
    """By cuDNN's kernel on an NVIDIA GPU where it suits, else by the formula."""
    if mask is None and flash.suits(q, k, v):
        out = jax.lax.platform_dependent(
            q, k, v, cuda=flash.flash_attention, default=softmax_attention
        )
    else:
        out = softmax_attention(q, k, v, mask_bias(mask))
    return out.reshape(*q.shape[:2], -1)
