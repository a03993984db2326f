"""Any EMA length after training, from snapshots of two: Karras et al. 2024, section 3.

A power-function average after t steps is theta_bar(t) = int_0^t p_t(s) theta(s) ds with
p_t(s) = (gamma + 1) s^gamma / t^(gamma + 1) (Eq. 1): old parameters weigh less, at the same rate
on every scale of t. Snapshots of two averages span a space in which the average of another
length, which nobody kept, is found by least squares.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from diffjax.errors import InputError
from diffjax.training.averages import Averages
from diffjax.types import Array, Scalar

Numbers = np.ndarray | Sequence | float | int


def gamma_of(length: float | int) -> float:
    """Exponent of the average whose width is `length` of the training time.

    The profile p_t has the standard deviation sigma t with
    sigma^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) (appendix C of the paper).

    Args:
      length: sigma, such as 0.05 or 0.10; above 0 and below 1/sqrt(12), that of a plain mean.

    Returns:
      gamma, above 0.

    Raises:
      InputError: there is no such gamma.
    """
    if not 0 < length < 12**-0.5:
        raise InputError(f"an EMA length is above 0 and below {12**-0.5:.4f}; got {length}.")
    # (g + 2)^2 (g + 3) = (g + 1) / sigma^2
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    return float(max(roots.real))


def length_of(gamma: float | int) -> float:
    """The inverse of `gamma_of`."""
    return float(np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))))


def power_decay(step: Scalar | Array | int, gamma: float | int):
    """Decay of a power-function average at a step: beta = (1 - 1/t)^(gamma + 1) (Eq. 2).

    theta_bar <- beta theta_bar + (1 - beta) theta after step t = 1, 2, ...; at t = 1 the initial
    average is forgotten.

    Args:
      step: t, at least 1.
      gamma: of `gamma_of`.

    Returns:
      beta in [0, 1).
    """
    return (1 - 1 / step) ** (gamma + 1)


class PowerEma(NamedTuple):
    """step -> decay of a power-function average, where the first step is 0; for `Averages`.

    Attributes:
      length: sigma of `gamma_of`.
    """

    length: float

    def __call__(self, step: Scalar | Array | int):
        return power_decay(step + 1, gamma_of(self.length))


def power_ema(length: float | int) -> PowerEma:
    """Decays of a power-function average.

    Args:
      length: sigma of `gamma_of`, such as 0.05 or 0.10.

    Returns:
      step -> decay, where the first step is 0.

    Raises:
      InputError: there is no average of that length.
    """
    gamma_of(length)
    return PowerEma(float(length))


def power_averages(lengths: Sequence[float | int]) -> Averages:
    """Averages of which `weights` rebuilds any other: two or more, or none.

    Args:
      lengths: sigmas of `gamma_of`; the paper keeps 0.05 and 0.10.

    Returns:
      Name -> `power_ema`.

    Raises:
      InputError: one length alone, one that comes twice, or one that no average has.
    """
    if len(lengths) == 1 or len(set(lengths)) < len(lengths):
        raise InputError(
            f"--ema-lengths are two or more, such as 0.05 0.10; got {' '.join(map(str, lengths))}."
        )
    return {f"power_{length:g}": power_ema(length) for length in lengths}


def lengths_of(averages: Averages) -> Mapping[str, float]:
    """The power-function averages among others: name -> length."""
    found = {name: decay for name, decay in averages.items() if isinstance(decay, PowerEma)}
    return {name: decay.length for name, decay in found.items()}


def inner_product(t1: Numbers, gamma1: Numbers, t2: Numbers, gamma2: Numbers) -> np.ndarray:
    """int p_{t1}(s) p_{t2}(s) ds of two profiles: appendix C of the paper.

    (g1 + 1) (g2 + 1) (t_early / t_late)^g_late / ((g1 + g2 + 1) t_late), where the profile that
    ends first has t_early.

    Args:
      t1: steps at which the first profiles end, above 0.
      gamma1: their exponents.
      t2: of the second profiles.
      gamma2: their exponents.

    Returns:
      The integrals, by NumPy's broadcasting.
    """
    t1, gamma1, t2, gamma2 = (np.asarray(a, np.float64) for a in (t1, gamma1, t2, gamma2))
    gamma_late = np.where(t1 < t2, gamma2, gamma1)
    early, late = np.minimum(t1, t2), np.maximum(t1, t2)
    ratio = (early / late) ** gamma_late
    return np.asarray((gamma1 + 1) * (gamma2 + 1) * ratio / ((gamma1 + gamma2 + 1) * late))


class Weights(NamedTuple):
    """How an average is put together.

    Attributes:
      weights: (n,) float64, of each snapshot. They sum to about 1, and may be negative.
      misfit: of the profile that they make from the wanted one, in L2 relative to the latter.
    """

    weights: np.ndarray
    misfit: float


def weights(steps: Numbers, gammas: Numbers, step: float | int, gamma: float | int) -> Weights:
    """Weights of snapshots whose sum is nearest to the average of another length.

    min_x int (sum_i x_i p_{t_i}(s) - p_t(s))^2 ds, by A x = b with the inner products (section
    3.2).

    Args:
      steps: at which each snapshot was taken, n of them.
      gammas: exponent of each snapshot's average.
      step: at which the wanted average ends, at most the last snapshot's.
      gamma: its exponent.

    Returns:
      The weights, and how far their profile is from the wanted one.

    Raises:
      InputError: no snapshots, two lengths, or a step after the last snapshot.
    """
    t, g = np.asarray(steps, np.float64), np.asarray(gammas, np.float64)
    if t.ndim != 1 or t.shape != g.shape or not len(t):
        raise InputError(f"expected one gamma per snapshot; got {t.shape} and {g.shape}.")
    if step > t.max():
        raise InputError(f"the last snapshot is of step {t.max():g}; got step {step:g}.")
    gram = inner_product(t[:, None], g[:, None], t[None], g[None])
    wanted = inner_product(t, g, np.float64(step), np.float64(gamma))
    x = np.linalg.lstsq(gram, wanted, rcond=1e-14)[0]
    square = float(inner_product(step, gamma, step, gamma))
    rest = square - 2 * x @ wanted + x @ gram @ x
    return Weights(x, float(np.sqrt(max(rest, 0) / square)))


def combine(snapshots: Sequence, x: np.ndarray):
    """Weighted sum of trees of parameters, in float64 and back to each leaf's type.

    Args:
      snapshots: n trees of arrays of one shape.
      x: (n,) from `weights`.

    Returns:
      A tree of NumPy arrays.
    """
    import jax

    def total(*leaves):
        found = sum(w * np.asarray(leaf, np.float64) for w, leaf in zip(x, leaves, strict=True))
        return found.astype(np.asarray(leaves[0]).dtype)

    return jax.tree.map(total, *snapshots)
