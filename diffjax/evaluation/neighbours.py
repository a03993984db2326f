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
    met = Meeting(_own_balls(real, k), _own_balls(fake, k))
    for rows, columns, block in products(fake, real):
        met.add(rows, columns, squared(block, fake, real, rows, columns))
    return met.strict_fidelity() if strict else met.fidelity()


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
    met = Meeting(_own_balls(real, k), _no_balls(fake))
    for rows, columns, block in products(fake, real):
        met.add(rows, columns, squared(block, fake, real, rows, columns))
    return met.density_coverage(k)


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
    met = Meeting(balls_real, balls_fake)
    for rows, columns, block in products(fake, real):
        sums[1].between(sums[0], rows, columns, block)
        met.add(rows, columns, squared(block, fake, real, rows, columns))
    whole, *subsets = sums[1].unbiased_mmd(sums[0])
    return AllPairs(float(whole), *met.fidelity(), *met.density_coverage(k), np.array(subsets))


class Meeting:
    """Which rows of each set lie in balls of the other, below the radius and up to it.

    Attributes:
      held: (M,) real balls that hold each sample.
      holds: (N,) whether each real ball holds a sample.
      among_real: (M,) whether a real ball holds or touches each sample.
      among_fake: (2, N) whether a sample's ball holds each real example, and holds or touches it.
    """

    def __init__(self, real: Balls, fake: Balls):
        self.real, self.fake = real, fake
        n, m = len(real.radii), len(fake.radii)
        self.held, self.holds = np.zeros(m, int), np.zeros(n, bool)
        self.among_real, self.among_fake = np.zeros(m, bool), np.zeros((2, n), bool)

    def add(self, rows: slice, columns: slice, block: np.ndarray) -> None:
        """A tile of squares between samples and real examples."""
        real, fake = self.real.part(columns), self.fake.part(rows)
        below, within = inside(block, fake.centres, real)
        self.held[rows] += np.count_nonzero(below, axis=1)
        self.holds[columns] |= below.any(axis=0)
        self.among_real[rows] |= within.any(axis=1)
        for i, touched in enumerate(inside(block.T, real.centres, fake)):
            self.among_fake[i, columns] |= touched.any(axis=1)

    def fidelity(self) -> tuple[float, float]:
        """Precision and recall with <=."""
        return float(self.among_real.mean()), float(self.among_fake[1].mean())

    def strict_fidelity(self) -> tuple[float, float]:
        """Precision and recall with <."""
        return float((self.held > 0).mean()), float(self.among_fake[0].mean())

    def density_coverage(self, k: int) -> tuple[float, float]:
        """Density and coverage."""
        return float(self.held.sum() / (k * len(self.held))), float(self.holds.mean())


def _own_balls(x: Rows, k: int, watch=lambda *block: None) -> Balls:
    return balls(x, nearest_within(x, k, watch)[0][:, -1])


def _no_balls(x: Rows) -> Balls:
    return balls(x, np.full(len(x.near), -1.0))


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
