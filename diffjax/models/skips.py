"""Rules for a U-Net's skip connections, changed at call time without training.

Each is a `skip` argument of `UNet.__call__`: `network(module, skip=free_u(b, s))`. Their factors
may be traced values, so that trying others compiles nothing.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from diffjax.models.layers import full
from diffjax.models.unet import SkipRule
from diffjax.types import Array, Scalar

Factors = Array | np.ndarray | Sequence[Scalar]


def free_u(b: Factors, s: Factors) -> SkipRule:
    """Strengthen the backbone and weaken the skips' low frequencies: Si et al. 2023 (FreeU).

    At stage i the first half of h's channels is multiplied by b_i. The four lowest frequencies
    (-1 and 0 in each direction) of the skip are multiplied by s_i, as in the first released code.

    Args:
      b: backbone factors, one per stage from the lowest resolution, at least 1; later stages
        stay as they are. The paper has (1.5, 1.6) for Stable Diffusion 1.4.
      s: skip factors, in [0, 1]; as many.

    Returns:
      A rule.
    """

    def rule(h, skip, stage, index):
        if stage >= len(b):
            return h, skip
        half = h.shape[-1] // 2
        factors = jnp.where(jnp.arange(h.shape[-1]) < half, b[stage], 1).astype(h.dtype)
        return h * factors[None, None, None, :], scale_low_frequencies(skip, s[stage])

    return rule


def scale_low_frequencies(x: Array, scale: Scalar) -> Array:
    """Multiply the frequencies -1 and 0 of each direction of x (B, H, W, C) by `scale`."""
    # x + (scale - 1) times its part at those frequencies, of which there are only four.
    wide = x.astype(full(x.dtype))
    height, width = x.shape[1:3]
    rows, columns = (low_frequencies(n, wide.dtype) for n in (height, width))
    low = jnp.einsum("hi,wj,bijc->bhwc", rows, columns, wide.astype(rows.dtype)).real
    return (wide + (jnp.asarray(scale, wide.dtype) - 1) * low).astype(x.dtype)


def low_frequencies(n: int, dtype: jnp.dtype) -> Array:
    """The projection (n, n) of n numbers on their frequencies -1 and 0."""
    frequencies = jnp.arange(-1, 1, dtype=dtype)[-n:]
    grid = jnp.arange(n, dtype=dtype)
    waves = jnp.exp(2j * jnp.pi * frequencies[:, None] * grid[None, :] / n)
    return waves.T @ waves.conj() / n


def skip_tuning(factors: Factors) -> SkipRule:
    """Scale every skip connection: Ma et al. 2024 (Skip-Tuning).

    Args:
      factors: one per skip, in the order in which they are joined: the lowest resolution first.

    Returns:
      A rule.
    """

    def rule(h, skip, stage, index):
        return h, skip * jnp.asarray(factors, skip.dtype)[index]

    return rule
