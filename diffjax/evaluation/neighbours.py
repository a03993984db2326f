"""Fidelity and coverage by nearest neighbours: precision, recall, density and coverage."""

import numpy as np

from diffjax.evaluation.distances import (
    as_features,
    inside,
    nearest_others,
    squared_distances,
)


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
    reach_real, reach_fake = (nearest_others(x, k)[0][:, -1] for x in (real, fake))
    among_real, among_fake = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    for rows, block in squared_distances(fake, real):
        among_real[rows] = inside(block, fake[rows], real, reach_real, strict).any(axis=1)
        among_fake |= inside(block.T, real, fake[rows], reach_fake[rows], strict).any(axis=1)
    return float(among_real.mean()), float(among_fake.mean())


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
    radii = nearest_others(real, k)[0][:, -1]
    count, covered = 0, np.zeros(len(real), bool)
    for rows, block in squared_distances(fake, real):
        held = inside(block, fake[rows], real, radii, strict=True)
        count += held.sum()
        covered |= held.any(axis=0)
    return float(count / (k * len(fake))), float(covered.mean())


def _two(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real = as_features(real, "real")
    return real, as_features(fake, "fake", width_of=real)
