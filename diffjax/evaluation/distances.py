"""Distances between rows in blocks: bounded memory, float64, and exact where two are equal."""

from collections.abc import Iterator

import numpy as np

from diffjax.errors import InputError

ROWS = 512
"""Rows of a block: 40 MB of distances to 10,000 others."""
PAIRS = 2**22
"""Numbers of the pairs that are measured exactly at a time: 32 MB."""
NEAR = 1e-11
"""Share of |x|^2 + |y|^2 below which the expanded square cannot tell two distances apart."""


def as_features(
    x: np.ndarray, name: str, at_least: int = 1, width_of: np.ndarray | None = None
) -> np.ndarray:
    """Features (N, D) in float64, checked.

    Args:
      x: anything that numpy reads as an array.
      name: what the error calls it.
      at_least: smallest N.
      width_of: features whose D it must have.

    Returns:
      (N, D) float64.

    Raises:
      InputError: another rank, too few rows, another D, NaN or infinite values.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or len(x) < at_least or x.shape[1] == 0:
        raise InputError(f"expected {name} (N, D) with N of at least {at_least}; got {x.shape}.")
    if width_of is not None and x.shape[1] != width_of.shape[1]:
        raise InputError(
            f"{name} have {x.shape[1]} features and the others {width_of.shape[1]}; take both "
            "from one extractor."
        )
    if not np.isfinite(x).all():
        raise InputError(f"{name} hold NaN or infinite values; look at the images they are of.")
    return x


def squared_distances(
    x: np.ndarray, y: np.ndarray, later: bool = False
) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of |x_i - y_j|^2 by the expanded square, one for every `ROWS` rows of x.

    Args:
      x: (N, D) float64.
      y: (M, D) float64.
      later: leave out the rows of y before the block's first, for x that is y.

    Yields:
      Rows of x, and their squared distances to all of y, (rows, M), at least 0.
    """
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    x_square, y_square = (x**2).sum(axis=1), (y**2).sum(axis=1)
    for first in range(0, len(x), ROWS):
        rows, columns = slice(first, first + ROWS), slice(first * later, None)
        block = x[rows] @ y[columns].T
        block *= -2
        block += x_square[rows, None]
        block += y_square[columns]
        yield rows, np.maximum(block, 0, out=block)


def exact_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sum of squared differences over the last axis, the same for the same pair of rows."""
    return ((x - y) ** 2).sum(axis=-1)


def nearest(x: np.ndarray, y: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances to the k nearest rows of y, and which they are.

    Args:
      x: (N, D).
      y: (M, D), M at least k.
      k: how many.

    Returns:
      Distances (N, k), rising, and indices (N, k).

    Raises:
      InputError: y has too few rows.
    """
    if len(y) < k:
        raise InputError(f"{k} neighbours need at least {k} examples; got {len(y)}.")
    candidates = np.empty((len(x), min(k + 1, len(y))), int)
    for rows, block in squared_distances(x, y):
        candidates[rows] = np.argpartition(block, candidates.shape[1] - 1, axis=1)[
            :, : candidates.shape[1]
        ]
    return _measured(x, y, candidates, k)


def nearest_others(x: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` among the other rows of x: a row is no neighbour of its own.

    Each pair is measured once.

    Args:
      x: (N, D), N above k.
      k: how many.

    Returns:
      Distances (N, k), rising, and indices (N, k).

    Raises:
      InputError: x has too few rows.
    """
    n, width = len(x), min(k + 1, len(x) - 1)
    if n <= k:
        raise InputError(f"{k} neighbours need at least {k + 1} examples; got {n}.")
    squares, candidates = np.full((n, width), np.inf), np.zeros((n, width), int)

    def offer(rows, block, first):
        found = np.concatenate([squares[rows], block], axis=1)
        best = np.argpartition(found, width - 1, axis=1)[:, :width]
        squares[rows] = np.take_along_axis(found, best, axis=1)
        old = np.take_along_axis(candidates[rows], np.minimum(best, width - 1), axis=1)
        candidates[rows] = np.where(best < width, old, best - width + first)

    for rows, block in squared_distances(x, x, later=True):
        np.fill_diagonal(block, np.inf)
        offer(rows, block, rows.start)
        if rows.stop < n:
            offer(slice(rows.stop, n), block[:, ROWS:].T, rows.start)
    return _measured(x, x, candidates, k)


def _measured(
    x: np.ndarray, y: np.ndarray, candidates: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of a few candidates (N, c), by exact distances."""
    exact = np.stack([exact_squares(x, y[column]) for column in candidates.T], axis=1)
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    distances = np.sqrt(np.take_along_axis(exact, order, axis=1))
    return distances, np.take_along_axis(candidates, order, axis=1)


def inside(
    block: np.ndarray, x: np.ndarray, y: np.ndarray, radii: np.ndarray, strict: bool
) -> np.ndarray:
    """Which x_i lie in the ball of y_j: |x_i - y_j| <= radii_j, or <.

    Pairs too near to the radius for the expanded square are measured again exactly, so that
    a copy of the neighbour which set the radius counts as <= and not as <.

    Args:
      block: (n, m) squared distances, as `squared_distances`.
      x: (n, D).
      y: (m, D), centres.
      radii: (m,) from `nearest_others`.
      strict: < rather than <=.

    Returns:
      (n, m) booleans.
    """
    compare = np.less if strict else np.less_equal
    squares = radii**2
    unsure = NEAR * (squares + ((y - y.mean(axis=0)) ** 2).sum(axis=1))
    result = compare(block, squares)
    i, j = np.nonzero((block >= squares - unsure) & (block <= squares + unsure))
    for part in np.array_split(np.arange(len(i)), 1 + i.size * x.shape[1] // PAIRS):
        a, b = i[part], j[part]
        result[a, b] = compare(np.sqrt(exact_squares(x[a], y[b])), radii[b])
    return result
