"""Where data comes from: random access to examples {"x", "label" | "caption"}."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from diffjax.errors import InputError, sentence

IN_MEMORY = 1 << 30  # bytes


@runtime_checkable
class Examples(Protocol):
    """Random access to examples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class Source(NamedTuple):
    """A data set.

    Attributes:
      examples: len() and integer indexing; each a dict with "x" (H, W, C), uint8 or float32
        in [-1, 1], and what conditions it: "label", an int, or "caption", a string.
      shape: of one x.
      num_classes: number of labels, 0 where there are none.
      in_memory: reading an example costs next to nothing, so that no workers are wanted.
    """

    examples: Examples
    shape: tuple[int, ...]
    num_classes: int
    in_memory: bool = True


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
    """Arrays or lists of equal length as a sequence of dicts of their rows."""

    def __init__(self, **arrays: np.ndarray | list):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: array[index] for name, array in self.arrays.items()}


class _Held:
    """Examples that are kept once they have been read."""

    def __init__(self, examples: Examples):
        self.examples, self.held = examples, {}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index not in self.held:
            self.held[index] = self.examples[index]
        return self.held[index]


def small(count: int, shape: tuple[int, ...]) -> bool:
    """Whether so many images of bytes are to be held in memory: up to 1 GiB."""
    return count * math.prod(shape) <= IN_MEMORY


def hold(source: Source) -> Source:
    """Keep a small source in memory: the first epoch reads it, the others find it there.

    Args:
      source: whose images are bytes.

    Returns:
      The source itself where it is in memory already or takes more than 1 GiB.
    """
    if source.in_memory or not small(len(source.examples), source.shape):
        return source
    return source._replace(examples=_Held(source.examples), in_memory=True)


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
      A source of the bytes, which the pipeline scales to [-1, 1].

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
    if label is None:
        return Source(Arrays(x=x), x.shape[1:], 0)
    return Source(Arrays(x=x, label=label.astype(np.int32)), x.shape[1:], int(label.max()) + 1)


def latents(path: str | Path, num_classes: int) -> Source:
    """Latents of an .npz file, as they are: `x` (N, h, w, C) float, and `label` (N,) int.

    Args:
      path: the file.
      num_classes: number of classes.

    Returns:
      A source in memory.
    """
    with np.load(path, allow_pickle=False) as file:
        x, label = file["x"].astype(np.float32), file["label"].astype(np.int32)
    return Source(Arrays(x=x, label=label), x.shape[1:], num_classes)
