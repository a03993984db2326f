"""Inception score, of any classifier's logits."""

from itertools import pairwise

import numpy as np
import scipy.special

from diffjax.evaluation.distances import as_features


def inception_score(logits: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """exp of the mean KL(p(y|x) || p(y)): Salimans et al. 2016, section 4.

    Convention: natural logarithm; no shuffling; split i holds rows i N // s to (i + 1) N // s;
    the standard deviation over splits is with n. The value grows with N.

    Args:
      logits: (N, K) of a classifier.
      splits: s, at least 1 and at most N.

    Returns:
      Mean and standard deviation over the splits; the score is in [1, K].

    Raises:
      InputError: fewer rows than splits, or values that are not finite.
    """
    logits = as_features(logits, "logits", at_least=splits)
    edges = [i * len(logits) // splits for i in range(splits + 1)]
    scores = [_score(logits[a:b]) for a, b in pairwise(edges)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: np.ndarray) -> float:
    log_p = scipy.special.log_softmax(logits, axis=1)
    log_marginal = scipy.special.logsumexp(log_p, axis=0) - np.log(len(log_p))
    return float(np.exp((np.exp(log_p) * (log_p - log_marginal)).sum(axis=1).mean()))
