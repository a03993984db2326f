"""Where data comes from: random access to examples, dicts of arrays."""

import math
from collections.abc import Callable
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
      examples: len() and integer indexing; each a dict with "x", such as an image (H, W, C) of
        uint8 or of float32 in [-1, 1], a video (F, H, W, C) or points (N, 3), and what belongs
        to it: "label", an int, "caption", a string, a mask; nested dicts of arrays too.
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


class _Cached:
    """Examples that are kept once they have been read."""

    def __init__(self, examples: Examples):
        self.examples, self.read = examples, {}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index not in self.read:
            self.read[index] = self.examples[index]
        return self.read[index]

    @property
    def arrays(self) -> dict[str, Any]:
        """What the examples hold in memory without being read, by name."""
        return getattr(self.examples, "arrays", {})


class _First:
    """The first `count` examples."""

    def __init__(self, examples: Examples, count: int):
        self.examples, self.count = examples, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.examples[index if index >= 0 else index + self.count]

    @property
    def arrays(self) -> dict[str, Any]:
        """What the examples hold in memory without being read, by name."""
        arrays = getattr(self.examples, "arrays", {})
        return {name: array[: self.count] for name, array in arrays.items()}


class _With:
    """Examples with one array made of their x, once for each."""

    def __init__(self, examples: Examples, name: str, make: Callable):
        self.examples, self.name, self.make, self.made = examples, name, make, {}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.examples[index]
        if index not in self.made:
            self.made[index] = self.make(np.asarray(example["x"]))
        return {**example, self.name: self.made[index]}

    @property
    def arrays(self) -> dict[str, Any]:
        """What the examples hold in memory without being read, by name."""
        arrays = getattr(self.examples, "arrays", {})
        return {name: array for name, array in arrays.items() if name != self.name}


def with_array(source: Source, name: str, make: Callable[[np.ndarray], np.ndarray]) -> Source:
    """A source whose examples have one more array, or another x.

    Args:
      source: the data.
      name: of the array that is added, or replaced.
      make: x of an example -> the array.

    Returns:
      The source; an array is made when its example is first read, and kept.
    """
    return source._replace(examples=_With(source.examples, name, make))


def without_last(source: Source, count: int) -> Source:
    """A source without its last examples, which are kept for a test.

    Args:
      source: the data.
      count: number of examples that are left out.

    Returns:
      The source.

    Raises:
      InputError: none would be left.
    """
    left = len(source.examples) - count
    if count < 0 or left < 1:
        raise InputError(
            f"cannot leave out {count} of {len(source.examples)} examples; give 0 to "
            f"{len(source.examples) - 1}."
        )
    return source._replace(examples=_First(source.examples, left))


def fits_in_memory(count: int, shape: tuple[int, ...]) -> bool:
    """Whether so many images of bytes take at most 1 GiB."""
    return count * math.prod(shape) <= IN_MEMORY


def cache_in_memory(source: Source) -> Source:
    """Keep the examples of a small source in memory once they have been read.

    Args:
      source: whose images are bytes.

    Returns:
      The source itself where it is in memory already or takes more than 1 GiB.
    """
    if source.in_memory or not fits_in_memory(len(source.examples), source.shape):
        return source
    return source._replace(examples=_Cached(source.examples), in_memory=True)


def digits() -> Source:
    """The 1,797 handwritten digits of scikit-learn, 8x8 with 17 grey levels, scaled to [-1, 1].

    From the test set of Alpaydin & Kaynak 1998 (UCI); the package carries them, nothing is
    downloaded.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (data.images[..., None] / 8 - 1).astype(np.float32)
    return Source(Arrays(x=x, label=data.target.astype(np.int32)), x.shape[1:], 10)
