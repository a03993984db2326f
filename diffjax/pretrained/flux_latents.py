"""FLUX's latents: 2x2 pixels as one token, and the network of tokens as one of latents."""

import jax.numpy as jnp

from diffjax.types import Array, Network


def pack(x: Array) -> Array:
    """Latents (B, H, W, C) as tokens (B, H/2 W/2, 4 C) of 2x2 pixels, the channels slowest."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(batch, height * width // 4, 4 * channels)


def unpack(tokens: Array, height: int, width: int) -> Array:
    """The inverse of `pack`: tokens (B, H/2 W/2, 4 C) -> (B, H, W, C)."""
    x = tokens.reshape(tokens.shape[0], height // 2, width // 2, -1, 2, 2)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(x.shape[0], height, width, -1)


def positions(height: int, width: int, axes: int = 3) -> Array:
    """(0, row, column) of the tokens of latents (H, W), row by row: (H/2 W/2, axes)."""
    row, column = jnp.divmod(jnp.arange(height * width // 4), width // 2)
    zeros = [jnp.zeros(row.shape)] * (axes - 2)
    return jnp.stack([*zeros, row, column], axis=1).astype(jnp.float32)


def packed(network: Network, axes: int = 3) -> Network:
    """FLUX's network of tokens as one of latents (B, H, W, C) of any even size.

    Args:
      network: from `load`.
      axes: of its positions.
    """

    def of_latents(params, x, t, cond, key):
        height, width = x.shape[1:3]
        cond = {**(cond or {}), "image_ids": positions(height, width, axes)}
        return unpack(network(params, pack(x), t, cond, key), height, width)

    return of_latents
