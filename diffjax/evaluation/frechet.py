"""Frechet distance between Gaussians fitted to features: FID once the features are Inception's."""

import warnings

import numpy as np
import scipy.linalg

from diffjax.evaluation.distances import blocks, checked

SFID_CHANNELS = 7
"""Channels of the 17 x 17 maps that ADM's evaluator keeps: 2,023 numbers, about FID's 2,048."""


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), in float64.

    Raises:
      InputError: fewer than two rows, or values that are not finite.
    """
    features = checked(features, "features", at_least=2)
    mean = features.mean(axis=0, dtype=np.float64)
    return mean, _scatter(features, mean) / (len(features) - 1)


def _scatter(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Sum of (x - mean)^T (x - mean) over the rows, (D, D), a block at a time in float64."""
    upper = np.zeros((x.shape[1], x.shape[1]), order="F")
    for rows in blocks(len(x)):
        upper = scipy.linalg.blas.dsyrk(1.0, (x[rows] - mean).T, 1.0, upper, overwrite_c=True)
    return upper + np.triu(upper, 1).T


def nuclear_norm(a: np.ndarray) -> float:
    """The sum of the singular values of a matrix (N, M), within 1e-8 of itself.

    They are the roots of the eigenvalues of a^T a, a third of the work of an SVD. An eigenvalue
    is off by about sqrt(M) rounding units of the largest, its root by that over twice the root;
    where this sums to too much, as of a singular matrix, the SVD is taken.
    """
    values = scipy.linalg.eigvalsh(a.T @ a)
    rounding = 4 * np.sqrt(len(values)) * np.finfo(float).eps * values[-1]
    if values[0] > rounding:
        roots = np.sqrt(values)
        if np.sum(rounding / (2 * roots)) < 1e-8 * roots.sum():
            return roots.sum()
    return scipy.linalg.svdvals(a).sum()


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
    root = nuclear_norm(_factor(covariance1).T @ _factor(covariance2))
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(covariance1) + np.trace(covariance2)
    return float(max(distance - 2 * root, 0.0))


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of two sets of features: Heusel et al. 2017, Eq. 6.

    Convention: covariances with n - 1 and no jitter. Packages that add 1e-6 to the diagonal, or
    take a matrix root, print slightly less where a covariance is singular.

    Args:
      x: (N, D) features.
      y: (M, D) features.

    Returns:
      The distance, at least 0, in the square of the features' unit.

    Raises:
      InputError: fewer than two rows, two widths, or values that are not finite.

    Warns:
      UserWarning: a set has no more rows than columns, so its covariance is singular. The value
        is still that of the formula, but its bias is large.
    """
    x, y = checked(x, "x", at_least=2), checked(y, "y", at_least=2, width_of=x)
    return frechet_of_factors(factor(x), factor(y))


def factor(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and a factor F with F^T F the unbiased covariance; F has min(N, D) rows."""
    n, d = x.shape
    if n <= d:
        warnings.warn(
            f"{n} examples in {d} dimensions have a singular covariance: the Frechet distance is "
            f"finite but strongly biased; give more than {d} examples",
            stacklevel=3,
        )
    if n <= d:
        mean = x.mean(axis=0, dtype=np.float64)
        return mean, (x - mean) / np.sqrt(n - 1)
    mean, covariance = moments(x)
    try:
        return mean, scipy.linalg.cholesky(covariance)
    except scipy.linalg.LinAlgError:
        return mean, _factor(covariance).T


def frechet_of_factors(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> float:
    """`frechet_distance` of two results of `factor`."""
    (mean1, f1), (mean2, f2) = first, second
    root = nuclear_norm(f1 @ f2.T)
    distance = np.sum((mean1 - mean2) ** 2) + np.sum(f1**2) + np.sum(f2**2)
    return float(max(distance - 2 * root, 0.0))


def sfid(x: np.ndarray, y: np.ndarray) -> float:
    """FID of spatial features: Nash et al. 2021, section 4.

    Convention: of ADM's evaluator, the first 7 channels of the maps (Inception's mixed_6/conv,
    17 x 17), flattened as H, W, C.

    Args:
      x: (N, H, W, C) feature maps.
      y: (M, H, W, C) feature maps.

    Returns:
      The Frechet distance. Errors and warnings are those of `fid`.
    """
    x, y = (np.asarray(maps)[..., :SFID_CHANNELS] for maps in (x, y))
    return fid(x.reshape(len(x), -1), y.reshape(len(y), -1))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """A with A A^T the covariance, also where it is singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))
