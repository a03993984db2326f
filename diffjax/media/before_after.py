"""What was given beside what became of it, as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from diffjax.codec import Sink, Writer
from diffjax.media.image import grid, save_png, to_uint8

ROWS = 60  # pictures that were given, at most
RESULTS = 24  # of one of them, at most


def rows(given: Sequence[np.ndarray], results: np.ndarray, pictures: int) -> np.ndarray:
    """One row for each picture: its given tiles, then its results.

    Args:
      given: arrays (num, H, W, C) uint8, whose sample i belongs to picture i mod `pictures`.
      results: (num, H, W, C) uint8, likewise.
      pictures: number of pictures.

    Returns:
      (H', W', C) uint8; where a picture has one result there are several to a row.
    """
    each = min(-(-len(results) // pictures), RESULTS)
    tiles = []
    for i in range(min(pictures, ROWS)):
        own = results[i::pictures][:each]
        blank = np.full((each - len(own), *own.shape[1:]), 255, np.uint8)
        tiles += [*(array[i] for array in given), *own, *blank]
    width = len(given) + each
    side_by_side = max(1, round((len(tiles) / width / width) ** 0.5))
    return grid(np.stack(tiles), width * side_by_side)


def before_after(given: Mapping[str, np.ndarray], pictures: int) -> Writer:
    """A PNG of `rows`.

    Args:
      given: tiles by name (num, H, W, C), floats in [-1, 1].
      pictures: number of different pictures among them.
    """

    def open(path: Path, num: int, raw: Mapping[str, np.ndarray]) -> Sink:
        kept = []

        def close() -> str:
            shown = [to_uint8(array) for array in given.values()]
            save_png(path, rows(shown, np.concatenate(kept), pictures))
            return f"{', '.join(given)} and {num} results in {path}"

        return Sink(lambda samples: kept.append(to_uint8(samples)), close)

    return Writer(open)
