"""All metrics of two sets of features, each with an interval and the reference's own floor."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from diffjax.evaluation.diversity import vendi
from diffjax.evaluation.extrapolation import fid_infinity, subset_orders, subset_sizes
from diffjax.evaluation.frechet import fid
from diffjax.evaluation.inception_score import inception_score
from diffjax.evaluation.kernels import cmmd
from diffjax.evaluation.memorisation import COPY_RATIO, memorisation
from diffjax.evaluation.neighbours import all_pairs
from diffjax.evaluation.pairs import psnr, ssim
from diffjax.evaluation.transport import directions, mind

Metric = Callable[["Sets", "Sets"], float | Sequence[float]]
"""(reference, samples) -> value, or values."""
FEW = 5000
"""Rows of each side that metrics of all pairs use at most, unless more are asked for."""
ENOUGH = 10_000
"""Samples from which FID's bias counts as small."""
LEVEL = 0.95
Z = 1.959964
INTERVAL = (
    "95% interval from a jackknife over {groups} groups, each of which leaves out a share of both "
    "sets; of copies and of classifier agreement, Wilson's"
)
SHARES = ("precision", "recall", "coverage", "authenticity")
"""Shares, whose intervals end at 0 and 1."""
AGREEMENT, COPIES = (
    "classifier agreement",
    f"share with nearest-neighbour ratio below {COPY_RATIO:.2f}",
)
"""Shares of samples that may be all or none, which a jackknife cannot bound."""


class Sets(NamedTuple):
    """What is known of one side's images.

    Attributes:
      features: (N, D).
      logits: (N, K), or None.
      labels: (N,), or None.
      maps: (N, E) spatial features of sFID, or None.
    """

    features: np.ndarray
    logits: np.ndarray | None = None
    labels: np.ndarray | None = None
    maps: np.ndarray | None = None

    def rows(self, chosen: np.ndarray) -> "Sets":
        """The chosen rows of all arrays."""
        return Sets(*(None if a is None else a[chosen] for a in self))


class Figure(NamedTuple):
    """A metric's value.

    Attributes:
      value: of the samples against the reference.
      low: lower end of the interval, nan where none was asked for.
      high: upper end.
      floor: the same metric of one part of the reference against the other.
      better: "lower", "higher", or "floor" where the floor is best.
    """

    value: float
    low: float
    high: float
    floor: float
    better: str


def _fid_infinity(a: Sets, b: Sets) -> float:
    n = len(b.features)
    sizes = subset_sizes(n, smallest=2 * b.features.shape[1])
    return fid_infinity(a.features, b.features, sizes, subset_orders(0, n))


def _mind(a: Sets, b: Sets) -> float:
    return mind(a.features, b.features, directions(0, 256, a.features.shape[1]))


def _agreement(a: Sets, b: Sets) -> float:
    return float(np.mean(b.logits.argmax(axis=1) == b.labels))


def few(metric: Metric, most: int) -> Metric:
    """The metric of at most `most` rows of each side, the same ones at every call; 0 is all."""

    def of_few(a: Sets, b: Sets) -> float | Sequence[float]:
        return metric(*(_some(side, most) for side in (a, b)))

    return of_few if most else metric


def _some(side: Sets, most: int) -> Sets:
    n = len(side.features)
    return side if n <= most else side.rows(np.random.default_rng(0).permutation(n)[:most])


class Family(NamedTuple):
    """Metrics that are computed together.

    Attributes:
      better: name of each -> "lower", "higher" or "floor".
      values: (reference, samples) -> their values, in the same order.
    """

    better: Mapping[str, str]
    values: Callable[[Sets, Sets], Sequence[float]]


PAIRWISE = {
    "KID": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
}
MEMORISATION = {"authenticity": "floor", COPIES: "floor"}


def _pairwise(a: Sets, b: Sets, k: int) -> Sequence[float]:
    return all_pairs(a.features, b.features, k)[: len(PAIRWISE)]


def metrics_of(
    frechet: str,
    reference: Sets,
    samples: Sets,
    k: int = 5,
    clip: bool = False,
    most: int = FEW,
) -> list[Family]:
    """The metrics that the two sides allow.

    Args:
      frechet: what the Frechet distance is called; "FID" for FID's own weights alone.
      reference: one side.
      samples: the other.
      k: neighbours.
      clip: the features are CLIP's, of which CMMD is defined.
      most: rows of each side that the metrics of all pairs use at most; 0 for all.

    Returns:
      Families, in the order in which they are shown.
    """
    families = [_one(frechet, lambda a, b: fid(a.features, b.features), "lower")]
    if len(samples.features) < ENOUGH and len(samples.features) >= 40:
        families.append(_one(f"{frechet}, extrapolated", _fid_infinity, "lower"))
    if samples.maps is not None and reference.maps is not None:
        spatial = _one(f"spatial {frechet}", lambda a, b: fid(a.maps, b.maps), "lower")
        families.append(spatial)
    families.append(_one("MIND", _mind, "lower"))
    families.append(Family(PAIRWISE, few(lambda a, b: _pairwise(a, b, k), most)))
    families.append(
        Family(MEMORISATION, few(lambda a, b: memorisation(a.features, b.features), most))
    )
    if clip:
        distance = few(lambda a, b: cmmd(a.features, b.features), most)
        families.append(_one("CMMD", distance, "lower"))
    families.append(_one("Vendi score", lambda a, b: vendi(b.features), "floor"))
    if samples.logits is not None and reference.logits is not None:
        score = _one("inception score", lambda a, b: inception_score(b.logits, 1)[0], "higher")
        families.append(score)
    if samples.logits is not None and samples.labels is not None:
        families.append(_one(AGREEMENT, _agreement, "higher"))
    return families


def _one(name: str, metric: Metric, better: str) -> Family:
    return Family({name: better}, lambda a, b: (metric(a, b),))


def better_of(families: Sequence[Family]) -> dict[str, str]:
    """Name -> what is better, of all metrics."""
    return {name: how for family in families for name, how in family.better.items()}


def values_of(families: Sequence[Family], a: Sets, b: Sets) -> dict[str, float]:
    """Name -> value, of all metrics."""
    found = (zip(family.better, family.values(a, b), strict=True) for family in families)
    return {name: float(value) for pairs in found for name, value in pairs}


def jackknife(metric: Metric, a: Sets, b: Sets, groups: int, seed: int = 0) -> np.ndarray | float:
    """Standard error by leaving out one of `groups` random groups of both sets at a time.

    se^2 = (g - 1)/g sum_i (theta_i - mean theta)^2: Efron & Tibshirani 1993, section 11.5.

    Args:
      metric: of two sides.
      a: the reference.
      b: the samples.
      groups: g, at least 2.
      seed: of the groups.

    Returns:
      The standard error of each of its values.
    """
    rng = np.random.default_rng(seed)
    group_a, group_b = (rng.permutation(len(s.features)) % groups for s in (a, b))
    values = [metric(a.rows(group_a != i), b.rows(group_b != i)) for i in range(groups)]
    return np.sqrt((groups - 1) * np.var(values, axis=0))


def halves(reference: Sets, num: int, seed: int = 0) -> tuple[Sets, Sets]:
    """The reference in two: up to `num` examples, at most half of it, against the rest."""
    n = len(reference.features)
    order = np.random.default_rng(seed).permutation(n)
    cut = min(num, n // 2)
    return reference.rows(order[cut:]), reference.rows(order[:cut])


def reconstruction(samples: np.ndarray, originals: np.ndarray) -> dict[str, Figure]:
    """Mean PSNR and SSIM of reconstructions, with normal intervals of the mean.

    Args:
      samples: (N, H, W, C) uint8 reconstructions.
      originals: (N, H, W, C) uint8, in the same order.

    Returns:
      Name to figure; SSIM where images have 11 pixels a side. Equal pairs have infinite PSNR.

    Raises:
      InputError: two numbers of images.
    """
    values = {"PSNR (dB)": psnr(samples, originals, 255)}
    if min(samples.shape[1:3]) >= 11:
        values["SSIM"] = ssim(samples, originals, 255)
    found = {}
    for name, each in values.items():
        mean = float(each.mean())
        finite = np.isfinite(mean) and len(each) > 1
        reach = 1.96 * float(each.std(ddof=1)) / np.sqrt(len(each)) if finite else np.nan
        found[name] = Figure(mean, mean - reach, mean + reach, np.nan, "higher")
    return found


def compare(
    families: Sequence[Family],
    reference: Sets,
    samples: Sets,
    groups: int = 10,
    progress: Callable[[], object] = lambda: None,
) -> tuple[dict[str, Figure], list[str]]:
    """Every metric with its interval and its floor.

    Args:
      families: of `metrics_of`.
      reference: the real side.
      samples: the side that is judged.
      groups: of the jackknife; 0 for no intervals.
      progress: called when a family is done.

    Returns:
      Name to figure, and the warnings met, each once.
    """
    found, notes = {}, []
    parts = halves(reference, len(samples.features))
    for family in families:
        with warnings.catch_warnings(record=True) as met:
            warnings.simplefilter("always")
            found |= _figures(family, reference, samples, parts, groups)
        notes += [str(m.message) for m in met if issubclass(m.category, UserWarning)]
        progress()
    return found, list(dict.fromkeys(notes))[:2]


def _figures(
    family: Family, reference: Sets, samples: Sets, parts: tuple[Sets, Sets], groups: int
) -> dict[str, Figure]:
    names = list(family.better)
    floors = family.values(*parts) if len(parts[1].features) > 10 else [np.nan] * len(names)
    groups = 0 if "extrapolated" in names[0] else groups
    values, lows, highs = interval(family.values, reference, samples, groups)
    found = {}
    for i, name in enumerate(names):
        value, low, high = float(values[i]), float(lows[i]), float(highs[i])
        if groups and name in (AGREEMENT, COPIES):
            low, high = wilson(value, len(samples.features))
        if name in SHARES:
            low, high = np.clip([low, high], 0, 1).tolist()
        found[name] = Figure(value, low, high, float(floors[i]), family.better[name])
    return found


def interval(
    metric: Metric, reference: Sets, samples: Sets, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A metric with its 95% interval by the jackknife; nan for the interval of 0 groups."""
    value = np.asarray(metric(reference, samples), np.float64)
    reach = np.full(value.shape, np.nan)
    if groups:
        reach = jackknife(metric, reference, samples, groups)
        reach = reach * scipy.stats.t.ppf((1 + LEVEL) / 2, groups - 1)
    return value, value - reach, value + reach


def wilson(share: float, num: int) -> tuple[float, float]:
    """The 95% interval of a share of `num` independent cases: Wilson 1927."""
    middle = (share + Z * Z / (2 * num)) / (1 + Z * Z / num)
    reach = np.sqrt(share * (1 - share) / num + Z * Z / (4 * num * num))
    reach *= Z / (1 + Z * Z / num)
    return min(share, float(middle - reach)), max(share, float(middle + reach))
