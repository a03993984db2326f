"""Fidelity and coverage by nearest neighbours: precision, recall, density and coverage."""

import numpy as np

from diffjax.evaluation.distances import as_features, nearest, within


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
    return _share(fake, real, k, strict), _share(real, fake, k, strict)


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
    radii = nearest(real, real, k, itself=True)[0][:, -1]
    count, covered = 0, np.zeros(len(real), bool)
    for _, block in within(fake, real, radii, strict=True):
        count += block.sum()
        covered |= block.any(axis=0)
    return float(count / (k * len(fake))), float(covered.mean())


def _two(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real = as_features(real, "real")
    return real, as_features(fake, "fake", width_of=real)


def _share(points: np.ndarray, centres: np.ndarray, k: int, strict: bool) -> float:
    """Share of the points in the ball of some centre."""
    radii = nearest(centres, centres, k, itself=True)[0][:, -1]
    blocks = within(points, centres, radii, strict)
    return float(np.concatenate([block.any(axis=1) for _, block in blocks]).mean())
