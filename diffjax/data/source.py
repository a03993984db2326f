"""Where data comes from: random access to examples {"x": uint8 or float, "label": int}."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.types import InputError, sentence


class Source(NamedTuple):
    """A data set.

    Attributes:
      examples: len() and integer indexing; each a dict with "x" (H, W, C) float32 in
        [-1, 1] and what conditions it, such as "label".
      shape: of one x.
      num_classes: number of labels, 0 where there are none.
    """

    examples: Sequence[dict[str, Any]]
    shape: tuple[int, ...]
    num_classes: int


def load(make: Callable[[], Source]) -> Source:
    """Call a source's maker, and turn what can go wrong into a sentence.

    Args:
      make: of the experiment.

    Returns:
      The source.

    Raises:
      InputError: it could not be read, or it is empty.
    """
    try:
        source = make()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the data could not be read: {sentence(error)}") from error
    if len(source.examples) == 0:
        raise InputError("the data set is empty; expected at least one example.")
    return source


class Arrays:
    """Arrays of equal length as a sequence of dicts of their rows."""

    def __init__(self, **arrays: np.ndarray):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: array[index] for name, array in self.arrays.items()}


def digits() -> Source:
    """The 1,797 handwritten digits of scikit-learn, 8x8 with 17 grey levels, scaled to [-1, 1].

    From the test set of Alpaydin & Kaynak 1998 (UCI); the package carries them, nothing is
    downloaded.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (data.images[..., None] / 8 - 1).astype(np.float32)
    return Source(Arrays(x=x, label=data.target.astype(np.int32)), x.shape[1:], 10)


def array(path: str | Path) -> Source:
    """Images of an .npz file: `x` (N, H, W, C) uint8, and optionally `label` (N,) int.

    Args:
      path: the file.

    Returns:
      A source with x scaled to [-1, 1].

    Raises:
      InputError: no such file, not an npz of such arrays, or no examples.
    """
    wanted = "an .npz file with `x` (N, H, W, C) uint8 and optionally `label` (N,) int"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "label") if name in file}
    except Exception as error:
        raise InputError(f"{path}: expected {wanted}; could not read it: {error}") from error
    x, label = arrays.get("x"), arrays.get("label")
    if x is None or x.ndim != 4 or x.dtype != np.uint8 or not len(x):
        got = "no array `x`" if x is None else f"`x` {x.shape} {x.dtype}"
        raise InputError(f"{path}: expected {wanted}, at least one image; got {got}.")
    if label is not None and (label.shape != x.shape[:1] or label.dtype.kind not in "iu"):
        raise InputError(f"{path}: expected {wanted}; got `label` {label.shape} {label.dtype}.")
    scaled = (x / np.float32(127.5) - 1).astype(np.float32)
    if label is None:
        return Source(Arrays(x=scaled), x.shape[1:], 0)
    return Source(Arrays(x=scaled, label=label.astype(np.int32)), x.shape[1:], int(label.max()) + 1)
