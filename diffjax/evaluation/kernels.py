"""Maximum mean discrepancy: KID, CMMD, and a two-sample test by permutation."""

from collections.abc import Callable, Iterable

import numpy as np
import scipy.spatial

from diffjax.errors import InputError
from diffjax.evaluation.distances import ROWS, Rows, as_features

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(N, D), (M, D) -> (N, M)."""

CMMD_BANDWIDTH, CMMD_SCALE = 10.0, 1000.0


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3, KID's kernel: Binkowski et al. 2018, Eq. 4."""
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    return base * base * base


def gaussian(bandwidth: float) -> Kernel:
    """exp(-|x - y|^2 / (2 bandwidth^2))."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None] - 2 * x @ y.T
        return np.exp(-np.maximum(squares, 0) / (2 * bandwidth**2))

    return kernel


def median_distance(x: np.ndarray) -> float:
    """Median Euclidean distance over all pairs i < j: the usual bandwidth of a Gaussian."""
    return float(np.median(scipy.spatial.distance.pdist(x)))


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD under (x.y/D + 1)^3: Binkowski et al. 2018, Eq. 4.

    Convention: the whole of both sets at once; means over i != j for xx and yy, over all
    pairs for xy; N and M may differ.

    Args:
      x: (N, D) features.
      y: (M, D) features.

    Returns:
      The estimate; it can be below 0.

    Raises:
      InputError: fewer than two rows, two widths, or values that are not finite.
    """
    x, y = as_features(x, "x", at_least=2), as_features(y, "y", at_least=2, width_of=x)
    within_x, within_y = _mean_within(polynomial, x), _mean_within(polynomial, y)
    return within_x + within_y - 2 * _mean(polynomial, x, y)


def kid_subsets(
    x: np.ndarray, y: np.ndarray, index_x: Iterable[np.ndarray], index_y: Iterable[np.ndarray]
) -> tuple[float, float]:
    """Mean and standard deviation of `kid` over subsets, as packages print it.

    Convention: the standard deviation is over subsets with n (not n - 1). It measures the spread
    of a subset's value and not the error of the mean.

    Args:
      x: (N, D) features.
      y: (M, D) features.
      index_x: rows of x in each subset, (S, n).
      index_y: rows of y in each subset, (S, m).

    Returns:
      Mean and standard deviation.
    """
    x, y = as_features(x, "x", at_least=2), as_features(y, "y", at_least=2, width_of=x)
    values = [kid(x[i], y[j]) for i, j in zip(index_x, index_y, strict=True)]
    return float(np.mean(values)), float(np.std(values))


def cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """1000 times the biased squared MMD under exp(-d^2 / (2 10^2)): Jayasumana et al. 2024.

    Convention: the V-statistic (diagonals included) of the rows as they are. The paper's
    features are CLIP embeddings of unit length; float32 loses 1e-4 of the value.

    Args:
      x: (N, D) embeddings.
      y: (M, D) embeddings.

    Returns:
      The value, at least 0 up to rounding.

    Raises:
      InputError: no rows, two widths, or values that are not finite.
    """
    x = as_features(x, "x")
    y = as_features(y, "y", width_of=x)
    kernel = gaussian(CMMD_BANDWIDTH)
    squared = _mean(kernel, x, x) + _mean(kernel, y, y) - 2 * _mean(kernel, x, y)
    return CMMD_SCALE * squared


def mmd_test(
    x: np.ndarray, y: np.ndarray, permutations: np.ndarray, kernel: Kernel = polynomial
) -> tuple[float, float]:
    """Unbiased squared MMD with its p-value by permutation: Gretton et al. 2012.

    p = (1 + #{null >= statistic}) / (1 + permutations): under equal distributions p is at
    most u with probability at most u. Memory is (N + M)^2.

    Args:
      x: (N, D) features.
      y: (M, D) features.
      permutations: (P, N + M) integers, each a permutation of the pooled rows (x, then y);
        its first N entries are group x.
      kernel: such as `polynomial` or `gaussian(median_distance(pooled))`.

    Returns:
      The statistic and p, in (0, 1].

    Raises:
      InputError: fewer than two rows, two widths, or permutations of another length.
    """
    x, y = as_features(x, "x", at_least=2), as_features(y, "y", at_least=2, width_of=x)
    n, m, pooled = len(x), len(y), np.concatenate([x, y])
    permutations = np.asarray(permutations)
    if permutations.ndim != 2 or permutations.shape[1] != n + m:
        raise InputError(f"expected permutations (P, {n + m}); got {permutations.shape}.")
    gram = kernel(pooled, pooled)
    np.fill_diagonal(gram, 0)
    group = np.zeros((n + m, 1 + len(permutations)))
    group[:n, 0] = 1
    np.put_along_axis(group[:, 1:], permutations.T[:n], 1, axis=0)
    sums = gram @ group
    xx = (group * sums).sum(axis=0)
    xy = sums.sum(axis=0) - xx
    yy = gram.sum() - xx - 2 * xy
    values = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    rounding = 1e-12 * np.abs(gram).mean()
    exceeding = np.sum(values[1:] >= values[0] - rounding)
    return float(values[0]), float((1 + exceeding) / (1 + len(permutations)))


class PolynomialSums:
    """Sums of KID's kernel, less 1, over the pairs of subsets, from tiles of products.

    The 1 cancels in a discrepancy, and what is left is smaller, so float32 serves it better.

    Args:
      x: N rows.
      chosen: (N, S) float32, 1 for the rows of each subset.
    """

    def __init__(self, x: Rows, chosen: np.ndarray):
        self.chosen, self.size = chosen, chosen.sum(axis=0, dtype=np.float64)
        centre = x.centre / x.factor
        self.shift = (x.near @ centre + centre @ centre / 2).astype(np.float32)
        self.scale = np.float32(x.factor**2 / x.near.shape[1])
        self.own = self.across = np.zeros(chosen.shape[1])

    def within(self, rows: slice, columns: slice, block: np.ndarray) -> None:
        """Add a tile of `products(x, x)`: pairs i != j, in both orders."""
        kernel, times = self._kernel(self, rows, columns, block), 2
        if rows == columns:
            np.fill_diagonal(kernel, 0)
            times = 1
        self.own = self.own + times * self._total(rows, kernel @ self.chosen[columns])

    def between(self, other: "PolynomialSums", rows: slice, columns: slice, block) -> None:
        """Add a tile of products with the rows of another set."""
        kernel = self._kernel(other, rows, columns, block)
        self.across = self.across + self._total(rows, kernel @ other.chosen[columns])

    def unbiased_mmd(self, other: "PolynomialSums") -> np.ndarray:
        """(S,) squared MMD of each pair of subsets, as `kid`."""
        own = [s.own / (s.size * (s.size - 1)) for s in (self, other)]
        return own[0] + own[1] - 2 * self.across / (self.size * other.size)

    def _kernel(self, other, rows, columns, block):
        base = block + self.shift[rows, None]
        base += other.shift[columns]
        base *= self.scale
        kernel = base + 3
        kernel *= base
        kernel += 3
        kernel *= base
        return kernel

    def _total(self, rows, sums):
        return np.einsum("ns,ns->s", self.chosen[rows], sums, dtype=np.float64)


def _sum(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> float:
    return sum(kernel(x[i : i + ROWS], y).sum() for i in range(0, len(x), ROWS))


def _mean(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> float:
    return float(_sum(kernel, x, y) / (len(x) * len(y)))


def _mean_within(kernel: Kernel, x: np.ndarray) -> float:
    """Mean over pairs i != j, each pair of blocks once."""
    total = 0.0
    for i in range(0, len(x), ROWS):
        rows, later = x[i : i + ROWS], x[i + ROWS :]
        own = kernel(rows, rows)
        total += own.sum() - np.trace(own)
        if len(later):
            total += 2 * kernel(rows, later).sum()
    return float(total / (len(x) * (len(x) - 1)))
