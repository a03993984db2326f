"""Frechet distance between Gaussians fitted to features: FID once the features are Inception's."""

import numpy as np
import scipy.linalg

from diffjax.errors import InputError


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), in float64."""
    if features.ndim != 2 or len(features) < 2:
        raise InputError(f"expected features (N, D) with N of at least 2; got {features.shape}.")
    features = np.asarray(features, np.float64)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(
    mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): Heusel et al. 2017, Eq. 6.

    The trace of the root is the sum of the singular values of A^T B for C1 = A A^T and
    C2 = B B^T, which needs no root of a nonsymmetric matrix and no jitter.

    Args:
      mean1: (D,).
      covariance1: (D, D), symmetric, positive semidefinite.
      mean2: (D,).
      covariance2: (D, D).

    Returns:
      The squared 2-Wasserstein distance of the two Gaussians, at least 0.
    """
    root = scipy.linalg.svdvals(_factor(covariance1).T @ _factor(covariance2)).sum()
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(covariance1) + np.trace(covariance2)
    return float(max(distance - 2 * root, 0.0))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """A with A A^T the covariance, also where it is singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))
