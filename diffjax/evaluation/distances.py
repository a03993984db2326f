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


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of |x_i - y_j|^2 by the expanded square, one for every `ROWS` rows of x.

    Args:
      x: (N, D) float64.
      y: (M, D) float64.

    Yields:
      Rows of x, and their squared distances to all of y, (rows, M), at least 0.
    """
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    x_square, y_square = (x**2).sum(axis=1), (y**2).sum(axis=1)
    for first in range(0, len(x), ROWS):
        rows = slice(first, first + ROWS)
        block = x[rows] @ y.T
        block *= -2
        block += x_square[rows, None]
        block += y_square[None]
        yield rows, np.maximum(block, 0, out=block)


def exact_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sum of squared differences over the last axis, the same for the same pair of rows."""
    return ((x - y) ** 2).sum(axis=-1)


def nearest(
    x: np.ndarray, y: np.ndarray, k: int = 1, itself: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances to the k nearest rows of y, and which they are.

    Args:
      x: (N, D).
      y: (M, D), M at least k.
      k: how many.
      itself: x is y, and a row is no neighbour of its own.

    Returns:
      Distances (N, k), rising, and indices (N, k).

    Raises:
      InputError: y has too few rows.
    """
    if len(y) < k + itself:
        raise InputError(f"{k} neighbours need at least {k + itself} examples; got {len(y)}.")
    distances, indices = np.empty((len(x), k)), np.empty((len(x), k), int)
    wanted = min(k + 1, len(y)) - 1
    for rows, block in squared_distances(x, y):
        if itself:
            block[np.arange(len(block)), np.arange(rows.start, rows.start + len(block))] = np.inf
        found = np.argpartition(block, wanted, axis=1)[:, : wanted + 1]
        exact = exact_squares(x[rows][:, None], y[found])
        exact[np.isinf(np.take_along_axis(block, found, axis=1))] = np.inf
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        distances[rows] = np.sqrt(np.take_along_axis(exact, order, axis=1))
        indices[rows] = np.take_along_axis(found, order, axis=1)
    return distances, indices


def within(
    x: np.ndarray, y: np.ndarray, radii: np.ndarray, strict: bool
) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of "x_i lies in the ball of y_j": |x_i - y_j| <= radii_j, or <.

    Pairs too near to the radius for the expanded square are measured again exactly, so that
    a copy of the neighbour which set the radius counts as <= and not as <.

    Args:
      x: (N, D).
      y: (M, D), centres.
      radii: (M,) from `nearest`.
      strict: < rather than <=.

    Yields:
      Rows of x, and a boolean block (rows, M).
    """
    inside = np.less if strict else np.less_equal
    squares = radii**2
    scale = NEAR * ((y - y.mean(axis=0)) ** 2).sum(axis=1)
    for rows, block in squared_distances(x, y):
        result = inside(block, squares)
        i, j = np.nonzero(np.abs(block - squares) <= NEAR * block + scale + NEAR * squares)
        for part in np.array_split(np.arange(len(i)), 1 + i.size * x.shape[1] // PAIRS):
            a, b = i[part], j[part]
            result[a, b] = inside(np.sqrt(exact_squares(x[rows][a], y[b])), radii[b])
        yield rows, result
