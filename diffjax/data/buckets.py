"""Aspect-ratio buckets: pictures of like shape are trained together, none cut to a square."""

from collections.abc import Sequence

import numpy as np

from diffjax.errors import InputError


def aspect_buckets(area: int, multiple: int = 64, smallest: int = 256) -> np.ndarray:
    """The sizes that pictures are brought to: for each height the widest that the area holds.

    As in the training of NovelAI's and of Stable Diffusion XL's models (Podell et al. 2023,
    section 2.3).

    Args:
      area: pixels of a picture at most, such as 512 * 512.
      multiple: divides both sides.
      smallest: a side at least.

    Returns:
      (K, 2) heights and widths, each once, by height; with each its transpose.

    Raises:
      InputError: a square of the smallest side is above the area.
    """
    if min(multiple, smallest) < 1 or smallest % multiple or smallest**2 > area:
        raise InputError(
            "aspect_buckets: expected a smallest side that `multiple` divides and whose square is "
            f"at most the area; got {smallest}, {multiple} and {area}."
        )
    heights = range(smallest, area // smallest + 1, multiple)
    pairs = [(h, area // h // multiple * multiple) for h in heights]
    return np.array(sorted({*pairs, *((w, h) for h, w in pairs)}))


def nearest_buckets(sizes: np.ndarray | Sequence, buckets: np.ndarray) -> np.ndarray:
    """The bucket of the nearest aspect ratio, in its logarithm; of equal ones the largest.

    Args:
      sizes: (N, 2) heights and widths of the pictures.
      buckets: (K, 2), from `aspect_buckets`.

    Returns:
      (N,) indices into the buckets.
    """
    sizes, buckets = np.asarray(sizes, float), np.asarray(buckets, float)
    order = np.argsort(-buckets.prod(axis=1), kind="stable")
    ratio, wanted = (np.log(a[:, 1] / a[:, 0]) for a in (buckets[order], sizes))
    far = np.abs(wanted[:, None] - ratio[None]).round(12)
    return order[far.argmin(axis=1)]


def bucket_batches(
    bucket: np.ndarray | Sequence, batch_size: int, seed: int = 0, epoch: int = 0
) -> np.ndarray:
    """The batches of an epoch, each of one bucket, in an order drawn anew for each epoch.

    Of each bucket fewer than a batch are left out, others in the next epoch.

    Args:
      bucket: (N,) of each example, from `nearest_buckets`.
      batch_size: examples of a batch.
      seed: of the order.
      epoch: from 0.

    Returns:
      (number of batches, batch_size) indices of examples, a function of the arguments alone.

    Raises:
      InputError: no bucket holds a batch.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(bucket))
    kinds = np.asarray(bucket)[shuffled]
    groups = [shuffled[kinds == kind] for kind in np.unique(kinds)]
    whole = [g[: len(g) // batch_size * batch_size].reshape(-1, batch_size) for g in groups]
    found = np.concatenate(whole) if whole else np.zeros((0, batch_size), int)
    if not len(found):
        raise InputError(f"no bucket holds {batch_size} examples; take smaller batches.")
    return rng.permutation(found)
