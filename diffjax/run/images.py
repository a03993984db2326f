"""Images drawn at a model's own defaults, the same ones that sample.py draws."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from diffjax import parallel
from diffjax.conditioning import Raw
from diffjax.errors import InputError
from diffjax.experiment import NOTHING, Model, Sampling
from diffjax.media import to_uint8
from diffjax.run.draw import conditions_of, usual_draw

BATCH = 250
"""Samples per compiled call, as of sample.py."""


class Images(NamedTuple):
    """Some of a draw's images.

    Attributes:
      images: (n, H, W, C) uint8.
      labels: (n,) int, or None.
    """

    images: np.ndarray
    labels: np.ndarray | None


def drawer(model: Model, mesh: Mesh, sampling: Sampling | None = None) -> Callable[..., Images]:
    """A function that draws images `first` to `first + num` of a seed.

    Args:
      model: of images; each image depends on the seed and its own index alone.
      mesh: whose devices share a batch; every process of it must call.
      sampling: how; default the model's own.

    Returns:
      (params, frozen, seed, num, first=0, batch=250, given={}) -> `Images`, `batch` of them by one
      compiled call; a batch that is not full is drawn whole and cut, so that nothing recompiles.
      `given` has values of the conditions' flags; one that has the flag `seed` is given the seed.

    Raises:
      InputError: of a call, where the model draws no images, or they are not finite.
    """
    draw, ts, scale = usual_draw(model, mesh, sampling)

    def images(params, frozen, seed, num, first=0, batch=BATCH, given=NOTHING):
        key = parallel.init_sharded(jax.random.key, mesh, np.uint32(seed))
        raw = conditions_of(model, first + num, {**given, "seed": seed})
        found = []
        for begin in range(first, first + num, batch):
            size = min(batch, first + num - begin)
            rows = np.minimum(np.arange(begin, begin + batch), first + num - 1)
            part = {name: np.asarray(array)[rows] for name, array in raw.items()}
            arguments = (params, frozen, jax.random.clone(key), ts, part, batch)
            x, _ = draw.samples(*arguments, scale, begin)
            found.append(to_images(x[:size]))
        return Images(np.concatenate(found), labels_of(raw, first))

    return images


def labels_of(raw: Raw | Mapping[str, Any], first: int = 0) -> np.ndarray | None:
    """The labels of the samples from `first` on, where the conditions have some."""
    return np.asarray(raw["label"])[first:].astype(int) if "label" in raw else None


def to_images(x: np.ndarray) -> np.ndarray:
    """Decoded samples as uint8.

    Raises:
      InputError: they are no images (N, H, W, C) of 1 or 3 channels, or not finite.
    """
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise InputError(f"images (H, W, C) of 1 or 3 channels are evaluated; got {x.shape[1:]}.")
    if x.dtype != np.uint8 and not np.isfinite(x).all():
        raise InputError("the samples are not finite; use an earlier --step, or other weights.")
    return x if x.dtype == np.uint8 else to_uint8(x)
