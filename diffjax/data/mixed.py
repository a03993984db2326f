"""Two sources as one, so that a loss of one is a weighted sum of the losses of both."""

import math

from diffjax.data.source import Source
from diffjax.errors import InputError


class _Mixed:
    """Examples of two sources, in turn by their shares."""

    def __init__(self, first, second, share: float):
        self.first, self.second, self.share = first, second, share
        self.length = math.ceil(max(len(first) / (1 - share), len(second) / share) - 1e-9)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        index = index if index >= 0 else index + self.length
        seconds = math.floor(index * self.share + 1e-9)
        if math.floor((index + 1) * self.share + 1e-9) > seconds:
            return self.second[seconds % len(self.second)]
        return self.first[(index - seconds) % len(self.first)]


def mixed(first: Source, second: Source, weight: float = 1.0) -> Source:
    """A source of two, with `weight` examples of the second for each of the first.

    The mean of a loss over it is that of both, (L_1 + weight L_2) / (1 + weight).

    Args:
      first: the data; seen several times an epoch where it is the shorter one for its share.
      second: of the same shape, with the same arrays; likewise.
      weight: of the second, above 0.

    Returns:
      The source.

    Raises:
      InputError: a weight that is not above 0, or sources that differ in shape or arrays.
    """
    if not 0 < weight < math.inf:
        raise InputError(f"expected a weight above 0; got {weight}.")
    arrays = [sorted(source.examples[0]) for source in (first, second)]
    if first.shape != second.shape or arrays[0] != arrays[1]:
        raise InputError(
            f"expected sources of one kind; got {first.shape} with {', '.join(arrays[0])} and "
            f"{second.shape} with {', '.join(arrays[1])}."
        )
    examples = _Mixed(first.examples, second.examples, weight / (1 + weight))
    memory = first.in_memory and second.in_memory
    return Source(examples, first.shape, max(first.num_classes, second.num_classes), memory)
