"""Distances between predictions, each (difference) -> (B,)."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.types import PerSample, Samples


def _norm_squared(x: Samples) -> PerSample:
    return jnp.sum(x**2, axis=tuple(range(1, x.ndim)))


def squared(difference: Samples) -> PerSample:
    """The mean of squares over the elements of a sample."""
    return jnp.mean(difference**2, axis=tuple(range(1, difference.ndim)))


def pseudo_huber(scale: float = 0.00054):
    """sqrt(|d|^2 + c^2) - c, c = scale sqrt(elements): Song & Dhariwal 2024 (iCT), section 3.3.

    Args:
      scale: 0.00054 is theirs; larger is closer to the squared distance.

    Returns:
      A distance.
    """

    def distance(difference):
        c = scale * np.sqrt(difference[0].size)
        return jnp.sqrt(_norm_squared(difference) + c**2) - c

    return distance


def elementwise_huber(c: float = 0.001):
    """The mean over elements of sqrt(d^2 + c^2) - c: of Luo et al. 2023 (LCM)'s training.

    Args:
      c: where the distance goes from a square to a modulus.

    Returns:
      A distance.
    """

    def distance(difference):
        huber = jnp.sqrt(difference**2 + c**2) - c
        return jnp.mean(huber, axis=tuple(range(1, difference.ndim)))

    return distance


def adaptive(power: float = 1.0, c: float = 1e-3):
    """|d|^2 / sg(|d|^2 + c)^p: the adaptive weight of Geng et al. 2025 (MeanFlow), section 4.3.

    Args:
      power: p; 0 is the sum of squares, 1 has a gradient of bounded size.
      c: keeps the weight finite.

    Returns:
      A distance.
    """

    def distance(difference):
        error = _norm_squared(difference)
        return error / jax.lax.stop_gradient(error + c) ** power

    return distance
