"""Layers that keep the magnitude of what they are given: Karras et al. 2024 (EDM2), section 2.

In expectation over independent inputs of unit variance, outputs have unit variance too.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.models.winograd import Convolve, convolve
from diffjax.types import Array

EPSILON = 1e-4


def normalize(x: Array, axes: tuple[int, ...]) -> Array:
    """x / (epsilon + its root mean square over `axes`): pixel norm and weight norm, EDM2 Eq. 66.

    Args:
      x: any shape; the norm is float32.
      axes: that are normalised together.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.mean(wide**2, axis=axes, keepdims=True)
    rms = jnp.sqrt(jnp.maximum(square, 1e-30))  # a gradient of 0 at 0
    return (wide / (EPSILON + rms)).astype(x.dtype)


def mp_silu(x: Array) -> Array:
    """SiLU over its root mean square under N(0, 1): EDM2, Eq. 81."""
    return nn.silu(x) / 0.596


def mp_sum(a: Array, b: Array, t: float) -> Array:
    """((1 - t) a + t b) / sqrt((1 - t)^2 + t^2): EDM2, Eq. 88."""
    return ((1 - t) * a + t * b) / np.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a: Array, b: Array, t: float) -> Array:
    """Concatenation of channels in which b's share of the magnitude is t: EDM2, Eq. 103."""
    n_a, n_b = a.shape[-1], b.shape[-1]
    scale = np.sqrt((n_a + n_b) / ((1 - t) ** 2 + t**2))
    weighted = [scale / np.sqrt(n_a) * (1 - t) * a, scale / np.sqrt(n_b) * t * b]
    return jnp.concatenate(weighted, axis=-1)


def unit_weight(w: Array | np.ndarray) -> Array:
    """A weight (..., features), each feature of which is normalised over all inputs."""
    return normalize(jnp.asarray(w), tuple(range(w.ndim - 1)))


def _initial_weight(key, shape):
    return unit_weight(jax.random.normal(key, shape))


class MPConv(nn.Module):
    """A layer without bias whose weights are used at unit norm: EDM2, Eq. 47.

    Attributes:
      features: of the output.
      kernel: (h, w) of a convolution, () of a dense layer over the last axis.
      convolve: how a convolution is computed.
    """

    features: int
    kernel: tuple[int, ...] = ()
    convolve: Convolve = convolve

    @nn.compact
    def __call__(self, x: Array, gain: Array | float = 1.0) -> Array:
        """x (..., C) -> (..., features), times the gain."""
        shape = (*self.kernel, x.shape[-1], self.features)
        w = unit_weight(self.param("weight", _initial_weight, shape))
        w = (w * (gain / np.sqrt(np.prod(shape[:-1])))).astype(x.dtype)
        if not self.kernel:
            return x @ w
        layout = ("NHWC", "HWIO", "NHWC")
        return self.convolve(x, w, (1, 1), "SAME", dimension_numbers=layout)
