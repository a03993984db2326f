"""Fidelity and coverage by nearest neighbours: precision, recall, density and coverage."""

from typing import NamedTuple

import numpy as np

from diffjax.evaluation.distances import (
    Balls,
    Rows,
    as_rows,
    balls,
    checked,
    inside,
    nearest_within,
    products,
    squared,
)
from diffjax.evaluation.kernels import PolynomialSums


def precision_recall(
    real: np.ndarray, fake: np.ndarray, k: int = 3, strict: bool = False
) -> tuple[float, float]:
    """Share of each set in the balls of the other: Kynkaanniemi et al. 2019, Eq. 1 and 2.

    The ball of a point reaches to its k-th neighbour in its own set, itself not counted.
    Convention: inside if distance <= radius, as in the paper; `strict` takes <, as in the prdc
    package. They differ on ties only, such as copies of training images.

    Args:
      real: (N, D) features of real examples.
      fake: (M, D) features of samples.
      k: neighbours of the radius.
      strict: < in place of <=.

    Returns:
      Precision (share of samples among the real) and recall (share of the real among samples),
      both in [0, 1].

    Raises:
      InputError: a set has k or fewer examples, two widths, or values that are not finite.
    """
    real, fake = _two(real, fake)
    held = Holding(_own_balls(real, k), fake), Holding(_own_balls(fake, k), real)
    for rows, columns, block in products(fake, real):
        squares = squared(block, fake, real, rows, columns)
        held[0].add(columns, rows, squares)
        held[1].add(rows, columns, squares.T)
    return tuple(side.strict_share() if strict else side.share() for side in held)


def density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> tuple[float, float]:
    """How many real balls hold a sample, and how many real points have one: Naeem et al. 2020.

    density = 1/(k M) sum_j #{i: fake_j in ball_i} (Eq. 3), coverage = share of real balls with
    at least one sample (Eq. 4). Convention: inside if distance < radius.

    Args:
      real: (N, D) features of real examples.
      fake: (M, D) features of samples.
      k: neighbours of the radius, itself not counted.

    Returns:
      Density, at least 0 and about 1 for equal distributions, and coverage in [0, 1].

    Raises:
      InputError: as `precision_recall`.
    """
    real, fake = _two(real, fake)
    held = Holding(_own_balls(real, k), fake)
    for rows, columns, block in products(fake, real):
        held.add(columns, rows, squared(block, fake, real, rows, columns))
    return held.density(k), held.coverage()


class AllPairs(NamedTuple):
    """What one pass over all pairs of two sets gives.

    Attributes:
      kid: of the whole sets.
      precision: as `precision_recall`.
      recall: likewise.
      density: as `density_coverage`.
      coverage: likewise.
      kid_subsets: (S,) of the subsets that were asked for.
    """

    kid: float
    precision: float
    recall: float
    density: float
    coverage: float
    kid_subsets: np.ndarray


def all_pairs(
    real: np.ndarray,
    fake: np.ndarray,
    k: int = 3,
    index_real: np.ndarray | None = None,
    index_fake: np.ndarray | None = None,
) -> AllPairs:
    """`kid`, `precision_recall` and `density_coverage` from the same three Gram matrices.

    None of them is kept. Neighbours are exact; the kernel's values are of float32 and their sums
    of float64, which moves KID by about 1e-7 of the kernel's mean.

    Args:
      real: (N, D) features of real examples.
      fake: (M, D) features of samples.
      k: neighbours of the radius.
      index_real: (S, n) rows of subsets for KID, no row twice in one; None for no subsets.
      index_fake: (S, m), likewise.

    Returns:
      `AllPairs`.

    Raises:
      InputError: as `precision_recall`.
    """
    real, fake = _two(real, fake)
    chosen_real, chosen_fake = _indicators(real, index_real), _indicators(fake, index_fake)
    sums = PolynomialSums(real, chosen_real), PolynomialSums(fake, chosen_fake)
    balls_real = _own_balls(real, k, sums[0].within)
    balls_fake = _own_balls(fake, k, sums[1].within)
    by_real, by_fake = Holding(balls_real, fake), Holding(balls_fake, real)
    for rows, columns, block in products(fake, real):
        sums[1].between(sums[0], rows, columns, block)
        squares = squared(block, fake, real, rows, columns)
        by_real.add(columns, rows, squares)
        by_fake.add(rows, columns, squares.T)
    whole, *subsets = sums[1].unbiased_mmd(sums[0])
    return AllPairs(
        kid=float(whole),
        precision=by_real.share(),
        recall=by_fake.share(),
        density=by_real.density(k),
        coverage=by_real.coverage(),
        kid_subsets=np.array(subsets),
    )


class Holding:
    """Which rows lie in the balls of another set.

    Attributes:
      count: (M,) balls that hold each row, below their radius.
      within: (M,) whether a ball holds or touches each row.
      filled: (N,) whether each ball holds a row.
    """

    def __init__(self, of: Balls, rows: Rows):
        self.of, self.rows = of, rows.exact
        n, m = len(of.radii), len(rows.exact)
        self.count, self.within, self.filled = (
            np.zeros(m, int),
            np.zeros(m, bool),
            np.zeros(n, bool),
        )

    def add(self, part: slice, rows: slice, block: np.ndarray) -> None:
        """A tile of squares (rows, part) between rows and centres of balls."""
        below, within = inside(block, self.rows[rows], self.of.part(part))
        self.count[rows] += np.count_nonzero(below, axis=1)
        self.within[rows] |= within.any(axis=1)
        self.filled[part] |= below.any(axis=0)

    def share(self) -> float:
        """Share of rows that a ball holds or touches: precision, or recall."""
        return float(self.within.mean())

    def strict_share(self) -> float:
        """Share of rows that a ball holds."""
        return float((self.count > 0).mean())

    def density(self, k: int) -> float:
        """Balls that hold a row, over k."""
        return float(self.count.sum() / (k * len(self.count)))

    def coverage(self) -> float:
        """Share of balls that hold a row."""
        return float(self.filled.mean())


def _own_balls(x: Rows, k: int, watch=lambda *block: None) -> Balls:
    return balls(x, nearest_within(x, k, watch)[0][:, -1])


def _two(real: np.ndarray, fake: np.ndarray) -> tuple[Rows, Rows]:
    real = checked(real, "real")
    fake = checked(fake, "fake", width_of=real)
    return tuple(as_rows(fake, real))[::-1]


def _indicators(x: Rows, index: np.ndarray | None) -> np.ndarray:
    """(N, 1 + S) float32: ones, and for each subset 1 for its rows."""
    index = np.zeros((0, 0), int) if index is None else np.asarray(index)
    chosen = np.zeros((len(x.near), 1 + len(index)), np.float32)
    chosen[:, 0] = 1
    np.put_along_axis(chosen[:, 1:], index.T, 1, axis=0)
    return chosen
