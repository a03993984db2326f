"""Space to channels and back, in the channel order of PyTorch: c, then row, then column."""

import jax.numpy as jnp

from diffjax.types import Array


def pixel_unshuffle(x: Array, r: int) -> Array:
    """(B, H, W, C) -> (B, H/r, W/r, C r^2)."""
    b, height, width, c = x.shape
    x = x.reshape(b, height // r, r, width // r, r, c)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(b, height // r, width // r, c * r * r)


def pixel_shuffle(x: Array, r: int) -> Array:
    """(B, H, W, C r^2) -> (B, r H, r W, C), the inverse of `pixel_unshuffle`."""
    b, height, width, c = x.shape
    x = x.reshape(b, height, width, c // r**2, r, r)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, r * height, r * width, c // r**2)


def group_means(x: Array, channels: int) -> Array:
    """Means of neighbouring channels, so that `channels` are left."""
    return x.reshape(*x.shape[:-1], channels, -1).mean(-1)


def repeat_channels(x: Array, channels: int) -> Array:
    """Every channel several times in a row, so that there are `channels`."""
    return jnp.repeat(x, channels // x.shape[-1], axis=-1)
