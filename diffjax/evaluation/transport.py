"""Wasserstein distances of point clouds: exact, and along random directions."""

import numpy as np
import scipy.optimize

from diffjax.errors import InputError
from diffjax.evaluation.distances import as_features, exact_squares


def directions(seed: int, num: int, width: int) -> np.ndarray:
    """(num, width) independent uniform unit vectors."""
    drawn = np.random.default_rng(seed).standard_normal((num, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def sliced_wasserstein(x: np.ndarray, y: np.ndarray, along: np.ndarray) -> float:
    """Mean over directions of the squared 1-D 2-Wasserstein distance: Bonneel et al. 2015.

    In one dimension the optimal plan sorts both sides; for N and M that differ, the quantile
    functions are compared exactly on the union of their steps.

    Args:
      x: (N, D).
      y: (M, D).
      along: (S, D) unit vectors, as `directions`.

    Returns:
      The mean of W_2^2, in the square of the features' unit.

    Raises:
      InputError: no rows, two widths, or values that are not finite.
    """
    x = as_features(x, "x")
    y = as_features(y, "y", width_of=x)
    edges = np.union1d(np.arange(1, len(x) + 1) * len(y), np.arange(1, len(y) + 1) * len(x))
    weights = np.diff(edges, prepend=0) / (len(x) * len(y))
    i, j = (edges - 1) // len(y), (edges - 1) // len(x)
    total = 0.0
    for first in range(0, len(along), 64):
        part = along[first : first + 64].T
        gap = np.sort(x @ part, axis=0)[i] - np.sort(y @ part, axis=0)[j]
        total += (weights @ gap**2).sum()
    return float(total / len(along))


def mind(x: np.ndarray, y: np.ndarray, along: np.ndarray) -> float:
    """Monge Inception distance: D times `sliced_wasserstein`, after Berthet et al. 2026.

    Convention: the factor D puts the value on FID's scale, for a shift by m costs |m|^2 in
    both. Values of other code may differ by a constant factor; compare values of one.

    Args:
      x: (N, D) features.
      y: (M, D) features.
      along: (S, D) unit vectors, as `directions(seed, 1000, D)`.

    Returns:
      The value, at least 0.
    """
    return np.shape(x)[1] * sliced_wasserstein(x, y, along)


def wasserstein(x: np.ndarray, y: np.ndarray, order: int = 2) -> float:
    """Exact Wasserstein distance of two point clouds, for low dimensions and small sets.

    W_p = (min over plans of E |x - y|^p)^(1/p). Sets of one size are an assignment problem;
    others need the optional package POT.

    Args:
      x: (N, D).
      y: (M, D).
      order: p, 1 or 2.

    Returns:
      The distance, in the features' unit.

    Raises:
      InputError: sizes differ and POT is not installed; bad features.
    """
    x = as_features(x, "x")
    y = as_features(y, "y", width_of=x)
    cost = np.stack([exact_squares(row, y) for row in x]) ** (order / 2)
    if len(x) == len(y):
        mean = cost[scipy.optimize.linear_sum_assignment(cost)].mean()
    else:
        mean = _pot().emd2(np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y)), cost)
    return float(mean) ** (1 / order)


def _pot():
    try:
        import ot
    except ImportError as error:
        raise InputError(
            "exact Wasserstein distances of sets of two sizes need POT: pip install pot."
        ) from error
    return ot
