"""Whether samples are copies of training examples."""

import numpy as np
import scipy.stats

from diffjax.errors import InputError
from diffjax.evaluation.distances import checked, nearest, nearest_others

COPY_RATIO = 1 / 3
"""A sample whose `nearest_ratio` is below this counts as memorised: Yoon et al. 2023."""


def nearest_ratio(train: np.ndarray, gen: np.ndarray) -> np.ndarray:
    """Distance to the nearest training example over that to the second nearest.

    Args:
      train: (N, D) features of training examples, N at least 2.
      gen: (M, D) features of samples.

    Returns:
      (M,) in [0, 1]; 0 where the sample is a training example, also one that is there twice.
    """
    return _ratio(_two_nearest(train, gen)[0])


def authenticity(train: np.ndarray, gen: np.ndarray) -> float:
    """Share of samples that are not nearer to a training example than its own neighbour is.

    Alaa et al. 2022, section 3; a sample is authentic if the nearest training neighbour of
    its nearest training example is closer (<) to that example than the sample is.

    Args:
      train: (N, D) features of training examples, N at least 2.
      gen: (M, D) features of samples.

    Returns:
      A share in [0, 1]; about 1/2 for new samples of the same distribution, less for copies.
    """
    return _authentic(train, *_two_nearest(train, gen))


def memorisation(train: np.ndarray, gen: np.ndarray) -> tuple[float, float]:
    """`authenticity`, and the share of `nearest_ratio` below `COPY_RATIO`, from one search."""
    distances, index = _two_nearest(train, gen)
    return _authentic(train, distances, index), float(np.mean(_ratio(distances) < COPY_RATIO))


def _two_nearest(train: np.ndarray, gen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    train = checked(train, "train", at_least=2)
    return nearest(checked(gen, "gen", width_of=train), train, k=2)


def _ratio(distances: np.ndarray) -> np.ndarray:
    first, second = distances.T
    return np.divide(first, second, out=np.zeros(len(first)), where=second > 0)


def _authentic(train: np.ndarray, distances: np.ndarray, index: np.ndarray) -> float:
    between = nearest_others(checked(train, "train"))[0][:, 0]
    return float(np.mean(between[index[:, 0]] < distances[:, 0]))


def copying_z(train: np.ndarray, test: np.ndarray, gen: np.ndarray) -> float:
    """z of the Mann-Whitney U of distances to the training set: Meehan et al. 2020, section 3.

    U counts pairs with the sample farther from the training set than the test example, ties
    as 1/2; z = (U - n m / 2 + 1/2) / sqrt(n m (n + m + 1) / 12).

    Args:
      train: (N, D) features of training examples.
      test: (T, D) features of held-out examples.
      gen: (M, D) features of samples.

    Returns:
      z: below about -3 samples are copies, above 3 they underfit.
    """
    train = checked(train, "train")
    test, gen = (checked(x, "features", width_of=train) for x in (test, gen))
    return _z(nearest(gen, train)[0][:, 0], nearest(test, train)[0][:, 0])


def copying_ct(
    train: np.ndarray, test: np.ndarray, gen: np.ndarray, centres: np.ndarray, tau: float | int
) -> float:
    """C_T, `copying_z` cell by cell: Meehan et al. 2020, Eq. 3.

    Args:
      train: (N, D) features of training examples.
      test: (T, D) features of held-out examples.
      gen: (M, D) features of samples.
      centres: (K, D); a cell is what lies nearest to a centre, such as k-means of `train`.
      tau: cells with at most this share of the samples are left out.

    Returns:
      Mean of the cells' z, weighted by their shares of the test examples.

    Raises:
      InputError: no cell is left, or one of those left has no training or test example.
    """
    train = checked(train, "train")
    test, gen = (checked(x, "features", width_of=train) for x in (test, gen))
    cells = [nearest(x, np.asarray(centres, float))[1][:, 0] for x in (train, test, gen)]
    kept = [c for c in range(len(centres)) if np.mean(cells[2] == c) > tau]
    parts = [[x[cell == c] for x, cell in zip((train, test, gen), cells)] for c in kept]  # noqa: B905
    parts = [part for part in parts if len(part[1])]
    if not parts or any(len(part[0]) == 0 for part in parts):
        raise InputError("C_T needs cells with training examples and samples; take fewer centres.")
    weights = [len(part[1]) for part in parts]
    return float(np.average([copying_z(*part) for part in parts], weights=weights))


def _z(gen: np.ndarray, test: np.ndarray) -> float:
    n, m = len(gen), len(test)
    u = scipy.stats.rankdata(np.concatenate([gen, test]))[:n].sum() - n * (n + 1) / 2
    return float((u - n * m / 2 + 0.5) / np.sqrt(n * m * (n + m + 1) / 12))
