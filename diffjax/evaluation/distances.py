"""Distances between rows in blocks: float32 products, and exact float64 where they decide."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from diffjax.errors import InputError

ROWS = 512
"""Rows of a tile: a megabyte of squares, which stays in a core's cache."""
PAIRS = 2**22
"""Numbers of the pairs that are measured exactly at a time: 32 MB."""
SPARE = 4
"""Candidates of float32 beyond the neighbours that are asked for."""

MEDIAN = 500
"""Rows at most whose median is the centre of a set."""


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
    return checked(x, name, at_least, width_of).astype(np.float64, copy=False)


def checked(
    x: np.ndarray, name: str, at_least: int = 1, width_of: np.ndarray | None = None
) -> np.ndarray:
    """`as_features` that keeps float32, for what takes it to float64 a block at a time."""
    x = np.asarray(x)
    if x.dtype != np.float32:
        x = x.astype(np.float64)
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


class Rows(NamedTuple):
    """Rows made ready for products.

    Attributes:
      exact: (N, D), as given.
      near: (N, D) float32: (exact - centre) / factor.
      squares: (N,) float32 squared lengths of `near`.
      factor: what distances of `near` are multiplied by.
      centre: (D,) float64.
    """

    exact: np.ndarray
    near: np.ndarray
    squares: np.ndarray
    factor: float
    centre: np.ndarray


def as_rows(*sets: np.ndarray) -> list[Rows]:
    """Sets (N, D) as `Rows`, with one centre and one factor.

    The centre is the median of some rows of the last, which rows that are far away do not move;
    the factor is the largest number that is left.
    """
    some = sets[-1][:: 1 + len(sets[-1]) // MEDIAN]
    centre = np.median(some, axis=0).astype(np.float64)
    largest = max(float(np.abs(x[part] - centre).max()) for x in sets for part in blocks(len(x)))
    factor, found = largest or 1.0, []
    for x in sets:
        near = np.empty(x.shape, np.float32)
        for part in blocks(len(x)):
            near[part] = (x[part] - centre) / factor
        found.append(Rows(x, near, np.einsum("nd,nd->n", near, near), factor, centre))
    return found


def blocks(n: int) -> Iterator[slice]:
    """Slices of `ROWS` that cover n rows."""
    for first in range(0, n, ROWS):
        yield slice(first, min(first + ROWS, n))


def products(x: Rows, y: Rows) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Tiles of inner products of near rows, of `ROWS` rows of each.

    Args:
      x: N rows.
      y: M rows; where they are x itself, each pair comes once, in rows <= columns.

    Yields:
      Rows of x, rows of y, and their products, float32.
    """
    for rows in blocks(len(x.near)):
        for columns in blocks(len(y.near)):
            if x is not y or rows.start <= columns.start:
                yield rows, columns, x.near[rows] @ y.near[columns].T


def squared(block: np.ndarray, x: Rows, y: Rows, rows: slice, columns: slice) -> np.ndarray:
    """|x_i - y_j|^2 of near rows from their products, which are overwritten.

    Each is off by `doubt` of |x_i|^2 + |y_j|^2 at most.
    """
    block *= -2
    block += x.squares[rows, None]
    block += y.squares[columns]
    return block


def doubt(width: int) -> float:
    """Share of |x|^2 + |y|^2 by which an expanded square in float32 can be wrong.

    A product of D numbers is off by D u |x| |y| at most in any order of summation, u = 2^-24
    (Higham 2002, section 3.1); the rest is for the rounding of rows and sums.
    """
    return (width + 16) * 2.0**-24


def exact_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sum of squared differences over the last axis, the same for the same pair of rows."""
    return ((x.astype(np.float64, copy=False) - y) ** 2).sum(axis=-1)


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
    near_x, near_y = as_rows(x, y)
    found = Nearest(len(x), min(k + SPARE, len(y)))
    for rows, columns, block in products(near_x, near_y):
        found.offer(rows, columns, squared(block, near_x, near_y, rows, columns))
    return found.measured(near_x, near_y, k)


def nearest_others(x: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` among the other rows of x: a row is no neighbour of its own.

    Args:
      x: (N, D), N above k.
      k: how many.

    Returns:
      Distances (N, k), rising, and indices (N, k).

    Raises:
      InputError: x has too few rows.
    """
    return nearest_within(as_rows(x)[0], k)


def nearest_within(
    x: Rows, k: int, watch: Callable[[slice, slice, np.ndarray], None] = lambda *block: None
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_others` of rows that are ready; `watch` is shown each block of products."""
    found = Nearest.of_others(x, k)
    for rows, columns, block in products(x, x):
        watch(rows, columns, block)
        squares = squared(block, x, x, rows, columns)
        if rows == columns:
            np.fill_diagonal(squares, np.inf)
        else:
            found.offer(columns, rows, squares.T)
        found.offer(rows, columns, squares)
    return found.measured(x, x, k)


class Nearest:
    """The smallest squares that each row has met, with their indices.

    Attributes:
      squares: (N, c) float32.
      index: (N, c).
      others: rows are not neighbours of their own.
    """

    def __init__(self, n: int, width: int, others: bool = False):
        self.squares = np.full((n, width), np.inf, np.float32)
        self.index = np.zeros((n, width), np.int64)
        self.others = others

    @classmethod
    def of_others(cls, x: Rows, k: int) -> "Nearest":
        """For the k nearest other rows of x; too few rows are an InputError."""
        n = len(x.near)
        if n <= k:
            raise InputError(f"{k} neighbours need at least {k + 1} examples; got {n}.")
        return cls(n, min(k + SPARE, n - 1), others=True)

    def offer(self, rows: slice, columns: slice, block: np.ndarray) -> None:
        """Take the smallest of a tile of squares."""
        width = self.squares.shape[1]
        block = np.ascontiguousarray(block)
        closer = block.min(axis=1) < self.squares[rows].max(axis=1)
        block, rows = block[closer], rows.start + np.flatnonzero(closer)
        best = _smallest(block, width)
        squares = np.concatenate([self.squares[rows], np.take_along_axis(block, best, 1)], axis=1)
        index = np.concatenate([self.index[rows], best + columns.start], axis=1)
        kept = _smallest(squares, width)
        self.squares[rows] = np.take_along_axis(squares, kept, axis=1)
        self.index[rows] = np.take_along_axis(index, kept, axis=1)

    def measured(self, x: Rows, y: Rows, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest by exact distances: (N, k) rising, and indices (N, k).

        A row whose candidates may have missed one looks for them again in float64.
        """
        distances, index = _ordered(x.exact, y.exact, self.index, k)
        if self.squares.shape[1] < len(y.near) - self.others:
            reach = doubt(x.near.shape[1]) * (x.squares + y.squares.max())
            limit = self.squares.max(axis=1) - reach
            unsure = np.flatnonzero((distances[:, -1] / x.factor) ** 2 >= limit)
            for part in np.array_split(unsure, 1 + len(unsure) // ROWS):
                candidates = _candidates(part, x, y, k + 1 + self.others)
                if self.others:
                    candidates = _without(candidates, part)
                distances[part], index[part] = _ordered(x.exact[part], y.exact, candidates, k)
        return distances, index


def _smallest(block: np.ndarray, width: int) -> np.ndarray:
    width = min(width, block.shape[1])
    return np.argpartition(block, width - 1, axis=1)[:, :width]


def _candidates(rows: np.ndarray, x: Rows, y: Rows, width: int) -> np.ndarray:
    """Indices of the rows of y that are nearest to some of x by the expanded square in float64."""
    few, found = x.exact[rows] - x.centre, np.empty((len(rows), len(y.exact)))
    for part in blocks(len(y.exact)):
        others = y.exact[part] - y.centre
        found[:, part] = (others**2).sum(axis=1) - 2 * few @ others.T
    return _smallest(found, width)


def _without(candidates: np.ndarray, own: np.ndarray) -> np.ndarray:
    """All columns of (n, c) candidates but one, which is the row's own where it is there."""
    last = np.argsort(candidates == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(candidates, last, axis=1)


def _ordered(
    x: np.ndarray, y: np.ndarray, candidates: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of a few candidates (N, c), by exact distances."""
    exact = np.empty(candidates.shape)
    for rows in blocks(len(x)):
        for j, column in enumerate(candidates[rows].T):
            exact[rows, j] = exact_squares(x[rows], y[column])
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    distances = np.sqrt(np.take_along_axis(exact, order, axis=1))
    return distances, np.take_along_axis(candidates, order, axis=1)


class Balls(NamedTuple):
    """Balls around rows.

    Attributes:
      centres: (M, D), exact.
      radii: (M,).
      low: (M,) float32 squares below which a row is surely inside.
      high: (M,) float32 squares above which it is surely outside.
    """

    centres: np.ndarray
    radii: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def part(self, rows: slice) -> "Balls":
        """Some of them."""
        return Balls(*(a[rows] for a in self))


def balls(centres: Rows, radii: np.ndarray) -> Balls:
    """Balls of some radii. Near the surface of one, |x|^2 is at most 2 (|y|^2 + r^2)."""
    squares = (radii / centres.factor) ** 2
    unsure = doubt(centres.near.shape[1]) * (3 * centres.squares + 2.01 * squares)
    low, high = (side.astype(np.float32) for side in (squares - unsure, squares + unsure))
    return Balls(centres.exact, radii, low, high)


def inside(block: np.ndarray, x: np.ndarray, of: Balls) -> tuple[np.ndarray, np.ndarray]:
    """Which x_i lie in ball j: |x_i - y_j| < radius_j, and <=.

    Pairs too near to the radius for float32 are measured again exactly, so that a copy of the
    neighbour which set the radius counts as <= and not as <.

    Args:
      block: (n, m) of `squared`.
      x: (n, D), exact.
      of: m balls.

    Returns:
      Two (n, m) of booleans.
    """
    below = block < of.low
    flat = np.flatnonzero((block <= of.high) ^ below)  # far faster than by two axes
    if not flat.size:
        return below, below
    i, j = np.divmod(flat, block.shape[1])
    within = below.copy()
    for part in np.array_split(np.arange(len(i)), 1 + i.size * x.shape[1] // PAIRS):
        a, b = i[part], j[part]
        distance = np.sqrt(exact_squares(x[a], of.centres[b]))
        below[a, b], within[a, b] = distance < of.radii[b], distance <= of.radii[b]
    return below, within
