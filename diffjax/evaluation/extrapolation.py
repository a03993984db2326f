"""FID and inception score without the bias of a finite sample: Chong & Forsyth 2020."""

from collections.abc import Sequence

import numpy as np

from diffjax.evaluation.distances import checked
from diffjax.evaluation.frechet import factor, frechet_of_factors
from diffjax.evaluation.inception_score import inception_score


def subset_sizes(n: int, smallest: int = 2, points: int = 15) -> np.ndarray:
    """Evenly spaced sizes from a tenth of n to n, as the paper has 5,000 to 50,000.

    Args:
      n: number of samples.
      smallest: size that the first is at least, but not above n / 2; above the number of
        features, no covariance is singular.
      points: how many sizes.

    Returns:
      (points,) integers, rising.
    """
    return np.linspace(max(n // 10, min(smallest, n // 2)), n, points).astype(int)


def subset_orders(seed: int, n: int, points: int = 15) -> np.ndarray:
    """(points, n) independent permutations; a subset is the head of its row."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n) for _ in range(points)])


def intercept(values: Sequence[float], sizes: np.ndarray) -> float:
    """Value at 1/N = 0 of the least-squares line through (1/N, value)."""
    return float(np.polynomial.polynomial.polyfit(1 / np.asarray(sizes, float), values, 1)[0])


def fid_infinity(real: np.ndarray, fake: np.ndarray, sizes: np.ndarray, order: np.ndarray) -> float:
    """FID for infinitely many samples: Chong & Forsyth 2020, section 4.

    FID of all of `real` against `fake[order[i][:sizes[i]]]`, extrapolated by ordinary least
    squares in 1/N. Only the bias of the samples goes; that of a finite reference stays.

    Args:
      real: (N, D) features of the reference.
      fake: (M, D) features of samples.
      sizes: (S,) numbers of samples, as `subset_sizes`.
      order: (S, M) permutations, as `subset_orders`.

    Returns:
      The intercept; noise can take it below 0.

    Raises:
      InputError: as `fid`.
    """
    real = checked(real, "real", at_least=2)
    fake = checked(fake, "fake", at_least=2, width_of=real)
    reference = factor(real)
    subsets = (fake[rows[:size]] for rows, size in zip(order, sizes, strict=True))
    return intercept([frechet_of_factors(reference, factor(s)) for s in subsets], sizes)


def is_infinity(logits: np.ndarray, sizes: np.ndarray, order: np.ndarray) -> float:
    """Inception score for infinitely many samples: Chong & Forsyth 2020, section 4.

    Args:
      logits: (N, K).
      sizes: (S,) numbers of samples.
      order: (S, N) permutations.

    Returns:
      The intercept of the score of one split over 1/N.
    """
    subsets = (logits[rows[:size]] for rows, size in zip(order, sizes, strict=True))
    return intercept([inception_score(s, splits=1)[0] for s in subsets], sizes)
