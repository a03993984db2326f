"""From a source to batches, through Grain. The batch of a step is a function of the step."""

import atexit
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from diffjax.data.augment import Augmentation, Example
from diffjax.data.check import check_labels
from diffjax.data.source import Source
from diffjax.errors import InputError

MOST_WORKERS = 8


def _augmented(functions: Sequence[Augmentation], example: Example, rng: np.random.Generator):
    """The functions one after the other, with the draws of one generator."""
    for function in functions:
        example = function(example, rng)
    return example


def _to_floats(batch: Example) -> Example:
    """Bytes of x to float32 in [-1, 1]; copies, so that no worker's shared memory is held."""
    import jax

    copies = jax.tree.map(np.array, batch)
    if isinstance(copies.get("x"), np.ndarray):
        copies["x"] = to_floats(copies["x"])
    return copies


def to_floats(x: np.ndarray) -> np.ndarray:
    """Bytes to float32 in [-1, 1], and floats to float32; others, such as tokens, as they are."""
    if x.dtype == np.uint8:
        floats = x / np.float32(127.5)
        floats -= 1  # in place, for a batch of photos takes longest where memory is new
        return floats
    return x.astype(np.float32, copy=False) if x.dtype.kind == "f" else x


def arrays_of(batch: Example) -> Example:
    """A batch without what JAX has no type for, such as captions, which are strings.

    Args:
      batch: dict, nested or not, of numpy arrays.

    Returns:
      The same dict without its arrays of strings, objects and dates.
    """

    def numbers(tree: Any) -> Any:
        if isinstance(tree, dict):
            kept = {name: numbers(leaf) for name, leaf in tree.items()}
            return {name: leaf for name, leaf in kept.items() if leaf is not None} or None
        return None if np.asarray(tree).dtype.kind in "OUSTMm" else tree

    return numbers(batch)


def _finished(num_classes: int, batch: Example) -> Example:
    """A batch as training gets it; labels beyond the source's classes end the run."""
    if num_classes and "label" in batch:
        check_labels(batch["label"], num_classes)
    return _to_floats(batch)


def _share(batch_size: int, process_index: int, process_count: int) -> int:
    """Examples of each batch that one process reads."""
    if not 0 <= process_index < process_count:
        raise InputError(
            f"the process index must be at least 0 and below the {process_count} processes; got "
            f"{process_index}."
        )
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1; got {batch_size}.")
    if batch_size % process_count:
        raise InputError(
            f"the batch size must be a multiple of the {process_count} processes that share it; "
            f"got {batch_size}."
        )
    return batch_size // process_count


def _in_workers(data, workers: int):
    """Read in worker processes; the batches and their order do not change."""
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain hands its flags on to the workers
        flags.FLAGS.mark_as_parsed()
    return data.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    )


def _until_dropped(iterator) -> Iterator[Example]:
    """Stop threads and workers when nobody reads on, at the latest before Python takes down."""
    live = [iterator]

    def close():
        while live:
            live.pop().close()

    def run():
        try:
            while live:
                yield next(live[0])
        finally:
            atexit.unregister(close)
            close()

    atexit.register(close)
    return run()


def batches(
    source: Source,
    batch_size: int,
    seed: int = 0,
    start: int = 0,
    augment: Sequence[Augmentation] = (),
    process_index: int = 0,
    process_count: int = 1,
    workers: int | None = None,
) -> Iterator[Example]:
    """Endless shuffled batches, from step `start` on.

    Every example is seen once per epoch, in an order drawn anew for each; batches run on
    across epochs. Batch i is a function of the source, the batch size, the seed and i: not
    of where the iteration began, nor of the workers. The shares of n processes, in the order
    of their indices, are the rows of the batch of one process.

    Args:
      source: the data set.
      batch_size: examples per batch, of all processes together.
      seed: of the order and of the augmentation.
      start: step of the first batch.
      augment: functions (example, rng) -> example, applied in order; all of them draw from
        one generator, which depends on the seed, the epoch and the example's place in it.
      process_index: which share of each batch to read, such as `jax.process_index()`.
      process_count: number of shares, such as `jax.process_count()`.
      workers: processes that read; 0 reads in a thread. None is 0 for a source in memory and
        one per core, at most 8, for another. A program that has workers keeps what it runs
        under `if __name__ == "__main__":`.

    Returns:
      An iterator of batches, read ahead in a thread: examples with an axis of
      batch_size / process_count in front of each array, nested dicts included. Bytes of "x"
      become float32 in [-1, 1], other floats of "x" float32. Captions are arrays of strings,
      which `arrays_of` leaves out.

    Raises:
      InputError: a batch size that is not positive or does not divide by the processes, a
        process index that is not one of theirs, a negative start or number of workers; while
        reading, a label that is not below the source's number of classes.
    """
    import grain

    share = _share(batch_size, process_index, process_count)
    if workers is None:
        workers = 0 if source.in_memory else min(MOST_WORKERS, os.cpu_count() or 1)
    if min(start, workers) < 0:
        raise InputError(f"start and workers must be at least 0; got {start} and {workers}.")
    data = grain.MapDataset.source(source.examples).seed(seed).shuffle().repeat()
    if augment:
        data = data.random_map(partial(_augmented, tuple(augment)))
    data = data.batch(share)[start * process_count + process_index :: process_count]
    data = data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))
    if workers:
        data = _in_workers(data, workers)
    data = grain.experimental.ThreadPrefetchIterDataset(
        data.map(partial(_finished, source.num_classes)), prefetch_buffer_size=2
    )
    return _until_dropped(iter(data))
