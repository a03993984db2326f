"""Random Fourier features of the noise level, at frequencies that are never trained."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.types import Array


def constant(module: nn.Module, name: str, value: np.ndarray, stored: bool) -> Array:
    """An array that is not trained, but that a checkpoint may hold.

    Args:
      module: whose `name` it is, within its `__call__`.
      name: of the leaf.
      value: of a new network.
      stored: whether it is a leaf of the parameters, without gradient, as a published network
        needs; otherwise it is `value`.
    """
    if not stored:
        return jnp.asarray(value)
    return jax.lax.stop_gradient(jnp.asarray(module.param(name, lambda _: jnp.asarray(value))))


def _normal(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n).astype(np.float32)


class FourierFeatures(nn.Module):
    """cos and sin of 2 pi f t with f ~ N(0, scale^2): NCSN++ (Song et al. 2021, appendix C).

    Attributes:
      dim: even number of features.
      scale: standard deviation of the frequencies.
      stored: see `constant`.
    """

    dim: int
    scale: float = 16.0
    stored: bool = False

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """t (B,) -> (B, dim), the cosines first."""
        value = self.scale * _normal(self.dim // 2)
        frequencies = constant(self, "frequencies", value, self.stored)
        angles = t[:, None] * (2 * np.pi * frequencies)[None, :]
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


class MPFourier(nn.Module):
    """sqrt(2) cos(f t + phi), of unit magnitude: Karras et al. 2024 (EDM2), Eq. 75.

    f ~ 2 pi N(0, 1) and phi ~ U(0, 2 pi).

    Attributes:
      dim: number of features.
      stored: see `constant`.
    """

    dim: int
    stored: bool = False

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """t (B,) -> (B, dim)."""
        uniform = np.random.default_rng(1).random(self.dim, np.float32)
        frequencies = constant(self, "frequencies", 2 * np.pi * _normal(self.dim), self.stored)
        phases = constant(self, "phases", 2 * np.pi * uniform, self.stored)
        return np.sqrt(2) * jnp.cos(t[:, None] * frequencies[None, :] + phases[None, :])
