"""From a source to batches, through Grain. The batch of a step is a function of the step."""

from collections.abc import Iterator

import numpy as np

from diffjax.data.source import Source
from diffjax.types import InputError


def _flip(example: dict, rng: np.random.Generator) -> dict:
    """Mirror an image left to right, half of the time."""
    return {**example, "x": example["x"][:, ::-1]} if rng.random() < 0.5 else example


def batches(
    source: Source, batch_size: int, seed: int = 0, start: int = 0, flip: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches, from step `start` on.

    Every example is seen once per epoch, in an order drawn anew for each; batches run on
    across epochs. Batch i is the same whether or not the iteration began before it.

    Args:
      source: the data set.
      batch_size: examples per batch.
      seed: of the order and of the augmentation.
      start: step of the first batch.
      flip: mirror half of the images left to right.

    Returns:
      An iterator of {"x": (B, H, W, C), ...}, read ahead in a thread.

    Raises:
      InputError: the batch size is not positive.
    """
    import grain

    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1; got {batch_size}.")
    data = grain.MapDataset.source(source.examples).seed(seed).shuffle().repeat()
    if flip:
        data = data.random_map(_flip)
    data = data.batch(batch_size)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    iterator = iter(data.to_iter_dataset(options))
    iterator.set_state({"next_index": start})
    return iterator
