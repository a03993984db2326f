"""Diversity of one set without a reference: the Vendi score."""

import numpy as np

from diffjax.errors import InputError
from diffjax.evaluation.distances import as_features


def vendi(x: np.ndarray, q: float | int = 1.0) -> float:
    """exp of the Renyi entropy of order q of the similarity's eigenvalues: Friedman & Dieng 2023.

    The eigenvalues l_i are those of K / N for the cosine similarities K; the score is
    (sum_i l_i^q)^(1/(1-q)), exp(-sum l log l) for q = 1, and 1 / max l for q = inf: the
    effective number of distinct examples.

    Args:
      x: (N, D) features; rows are scaled to length 1.
      q: order, at least 0. Small orders count rare examples more.

    Returns:
      The score, in [1, N].

    Raises:
      InputError: q below 0, no rows, a row of zeros, or values that are not finite.
    """
    x = as_features(x, "x")
    if not q >= 0:
        raise InputError(f"vendi needs an order q of at least 0; got {q}.")
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if not lengths.all():
        raise InputError("vendi needs rows that are not all zero; cosines have no meaning there.")
    x = x / (lengths * np.sqrt(len(x)))
    values = np.linalg.eigvalsh(x.T @ x if x.shape[1] < len(x) else x @ x.T)
    values = values[values > 1e-13]
    if q == 1:
        return float(np.exp(-np.sum(values * np.log(values))))
    if np.isinf(q):
        return float(1 / values.max())
    return float(np.sum(values**q) ** (1 / (1 - q)))
