"""How long a training loop waits for its data."""

import time
from collections.abc import Iterator

from diffjax.types import PyTree


class Waited(Iterator[PyTree]):
    """Batches, and the share of the time that went by until each was there.

    Steps are dispatched before they end, so that most of such a wait passes beside a step; the
    share is the most that faster data could save.

    Args:
      batches: any iterator.
    """

    def __init__(self, batches: Iterator[PyTree]):
        self._batches, self._seconds = iter(batches), 0.0
        self._began = time.perf_counter()
        self._marked = 0.0, self._began

    def __next__(self) -> PyTree:
        began = time.perf_counter()
        batch = next(self._batches)
        self._seconds += time.perf_counter() - began
        return batch

    def share(self) -> float:
        """Seconds waited over seconds that went by, 0 to 1, since this was last asked."""
        waited, since = self._marked
        self._marked = self._seconds, time.perf_counter()
        return (self._seconds - waited) / (self._marked[1] - since)

    def whole(self) -> float:
        """The same since the beginning."""
        return self._seconds / (time.perf_counter() - self._began)
