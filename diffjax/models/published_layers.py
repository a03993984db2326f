"""Layers that published transformers share, under the names of their files."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.layers import sinusoidal_embedding
from diffjax.models.transformer import dense
from diffjax.types import Array, Cond


class TwoLayers(nn.Module):
    """linear_2(f(linear_1(x))).

    Attributes:
      width: of the result, and between unless `hidden` says.
      activation: f.
      hidden: width between.
    """

    width: int
    activation: Callable[[Array], Array] = nn.silu
    hidden: int | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., D) to (..., width)."""
        h = dense(self.hidden or self.width, x.dtype, name="linear_1")(x)
        return dense(self.width, x.dtype, name="linear_2")(self.activation(h))


def waves(t: Array, width: int, name: str) -> Array:
    """256 sines and cosines of t (B,) through two layers; called within a module."""
    return TwoLayers(width, name=name)(sinusoidal_embedding(t, 256))


def plain_norm(x: Array, epsilon: float = 1e-6) -> Array:
    """(x - mean) / sqrt(var + epsilon) over the last axis, in float32: Ba et al. 2016."""
    h = x.astype(jnp.float32)
    h = h - h.mean(-1, keepdims=True)
    return (h / jnp.sqrt(jnp.mean(h**2, -1, keepdims=True) + epsilon)).astype(x.dtype)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """x (1 + scale) + shift, for x (B, T, D) and shift and scale (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


def scaled_rms(x: Array, scale: Array, epsilon: float = 1e-6) -> Array:
    """x / sqrt(mean(x^2) + epsilon) times scale, over the last axis, in float32."""
    h = x.astype(jnp.float32)
    h = h / jnp.sqrt(jnp.mean(h**2, -1, keepdims=True) + epsilon)
    return (h * jnp.broadcast_to(scale, h.shape)).astype(x.dtype)


def needed(cond: Cond, name: str, where: str) -> Array:
    """One condition that a network cannot do without.

    Raises:
      InputError: it is not there.
    """
    if not cond or name not in cond:
        raise InputError(f"{where} needs cond[{name!r}]; got {sorted(cond or {})}.")
    return cond[name]


def rotary(ids: Array, widths: tuple[int, ...], theta: float = 10_000.0) -> tuple[Array, Array]:
    """cos and sin (T, sum of widths / 2) of positions on several axes: Su et al. 2021, Eq. 15.

    Args:
      ids: (T, axes) coordinates.
      widths: channels of each axis.
      theta: period of the slowest wave over 2 pi.
    """
    angles = [
        ids[:, i, None] * (theta ** (-jnp.arange(0, width, 2) / width))[None]
        for i, width in enumerate(widths)
    ]
    angles = jnp.concatenate(angles, axis=1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate_pairs(x: Array, wave: tuple[Array, Array]) -> Array:
    """x (B, T, heads, D) with channels (0, 1), (2, 3), ... turned by angles (T, D/2)."""
    cos, sin = (a[None, :, None, :] for a in wave)
    a, b = x[..., 0::2], x[..., 1::2]
    turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
