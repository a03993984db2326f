"""Between data and what is diffused, and from samples to files.

Pixels are diffused as they are, pictures of a latent model through an autoencoder, waves
through a spectrogram. A writer is chosen by the suffix of the file that is asked for.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.types import Array, PyTree


class Sink(NamedTuple):
    """A file that is being written.

    Attributes:
      add: takes the next samples (n, ...), decoded, as NumPy arrays.
      close: () -> a sentence that says what was written, once all are added.
    """

    add: Callable[[np.ndarray], None]
    close: Callable[[], str]


class Writer(NamedTuple):
    """How samples become a file of one kind.

    Attributes:
      open: (path, num, raw) -> Sink, for `num` samples with the raw conditions `raw` (num, ...).
      frames: 0 takes every sample once; n takes the whole denoising (times, samples, ...) of
        the first n samples in one `add`, as an animation needs it.
    """

    open: Callable[[Path, int, Mapping[str, np.ndarray]], Sink]
    frames: int = 0


def _as_it_is(frozen: Mapping[str, PyTree], x: Array) -> Array:
    return x


class Codec(NamedTuple):
    """The map between data and what is diffused, and the writers of what it decodes to.

    Attributes:
      encode: (frozen, data (B, ...)) -> x (B, ...), in training.
      decode: (frozen, x (B, ...)) -> data (B, ...), after sampling.
      writers: suffix such as ".png" -> `Writer`.
      sheet: decoded samples (N, ...) -> (H, W, C) uint8, the picture of a preview; None where
        there is no picture of such data.
    """

    encode: Callable[[Mapping[str, PyTree], Array], Array] = _as_it_is
    decode: Callable[[Mapping[str, PyTree], Array], Array] = _as_it_is
    writers: Mapping[str, Writer] = {}
    sheet: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray] | None = None
