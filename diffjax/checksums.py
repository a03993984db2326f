"""Checksums of arrays that do not depend on how they are sharded, at the speed of CRC-32.

With the words b_i of 32 bits (or of the element's size, where it is smaller) at the places
i = 0, 1, ... of the whole array in row-major order, and an odd K,

    (1)  sum_i b_i (1 + 2 K i)  =  sum_i b_i  +  2 K sum_i i b_i   (mod 2^64).

The weights are odd, so that (1) tells any change of one word. Two words that change places
change it by 2 K (b_i - b_j) (i - j), which is not 0 modulo 2^64 for fewer than 2^32 elements.
Elements of 8 or 16 bytes are 2 or 4 words, with a sum for each. The sums of shards add up.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from diffjax.types import PyTree

K = 0x9E3779B97F4A7C15
BLOCK = 1 << 16  # words summed at a time, so that they stay in the processor's cache
BITS = 64  # of one sum
WORD = 4  # bytes


class Part(NamedTuple):
    """A part of an array on the host.

    Attributes:
      values: its elements.
      shape: of the whole array.
      index: where the part lies in it, a slice for each axis.
    """

    values: np.ndarray
    shape: tuple[int, ...]
    index: tuple[slice, ...]


def parts(state: PyTree) -> dict[str, list[Part]]:
    """The parts of every leaf that this process has the first copy of, by the leaf's path.

    They are views where the leaf is on the CPU, and stay as they are if it is donated later.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): _parts(leaf) for path, leaf in leaves}


def _parts(leaf: jax.Array | np.ndarray) -> list[Part]:
    own = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
    if own and jax.process_index() > 0:  # every process has it whole; the first counts it
        return []
    if not isinstance(leaf, jax.Array):
        whole = np.asarray(leaf)
        return [Part(whole, whole.shape, (slice(None),) * whole.ndim)]
    shards = (shard for shard in leaf.addressable_shards if shard.replica_id == 0)
    return [Part(np.asarray(shard.data), leaf.shape, shard.index) for shard in shards]


def sums(of: dict[str, list[Part]]) -> dict[str, int]:
    """Equation (1) over the parts of each leaf; of several words the later ones 64 bits higher.

    Args:
      of: from `parts`.

    Returns:
      Checksums by the same names; `add` adds those of other processes.
    """
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda leaf: add([_sum(part) for part in leaf]), of.values())
        return dict(zip(of, found, strict=True))


def add(values: Sequence[int]) -> int:
    """The checksum of a whole from those of its parts: word by word, modulo 2^64."""
    words = [[v >> BITS * k & (2**BITS - 1) for v in values] for k in range(WORD)]
    return sum(sum(word) % 2**BITS << BITS * k for k, word in enumerate(words))


def to_words(value: int) -> list[int]:
    """A checksum as eight words of 32 bits, the lowest first."""
    return [value >> 32 * k & 0xFFFFFFFF for k in range(2 * WORD)]


def from_words(words: Sequence[int]) -> int:
    """The inverse of `to_words`."""
    return sum(int(word) << 32 * k for k, word in enumerate(words))


def as_before(value: int) -> int:
    """The checksum that elements of 8 bytes had when each was one word: low + 2^32 high."""
    return (value + (value >> BITS << 32)) % 2**BITS


def _sum(part: Part) -> int:
    """The checksum of a part of an array."""
    values = np.ascontiguousarray(part.values)
    if not values.size:
        return 0
    size = min(values.dtype.itemsize, WORD)
    words = values.reshape(-1).view(f"u{size}").reshape(values.size, -1)
    begins, length = _runs(part, part.values.shape)
    found = (_weighted(words[:, k], begins, length) for k in range(words.shape[1]))
    return sum(value << BITS * k for k, value in enumerate(found))


def _runs(part: Part, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The place in the whole of each run of the part's elements that lie side by side there.

    Returns:
      (places (R,) of the runs' first elements, the length of each).
    """
    axis = len(shape)
    while axis and shape[axis - 1] == part.shape[axis - 1]:
        axis -= 1
    axis = max(axis - 1, 0)  # the first axis of a run may be cut, the others are whole
    place = np.zeros(1, np.uint64)
    for i, (size, cut) in enumerate(zip(part.shape, part.index, strict=True)):
        start, stop, _ = cut.indices(size)
        along = np.arange(start, stop if i < axis else start + 1, dtype=np.uint64)
        place = (place[:, None] * np.uint64(size) + along).reshape(-1)
    return place, math.prod(shape[axis:])


def _weighted(words: np.ndarray, begins: np.ndarray, length: int) -> int:
    """Equation (1) of words that lie in runs of one length, block by block."""
    rows = max(BLOCK // length, 1)
    width = min(length, BLOCK)
    steps = np.arange(width, dtype=np.uint64)
    space = np.empty((rows, width), np.uint64)
    words, plain, placed = words.reshape(-1, length), 0, 0
    for top in range(0, len(begins), rows):
        for left in range(0, length, width):
            cut = words[top : top + rows, left : left + width]
            block = space[: cut.shape[0], : cut.shape[1]]
            block[...] = cut
            each = block.sum(axis=1)
            block *= steps[: cut.shape[1]]
            plain += int(each.sum())
            placed += int((each * (begins[top : top + rows] + np.uint64(left))).sum())
            placed += int(block.sum())
    return (plain + 2 * K * placed) % 2**BITS
