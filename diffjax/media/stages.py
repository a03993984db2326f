"""The files of a cascade: the small pictures first, then the large ones drawn from them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffjax.codec import Codec, Sink, Writer
from diffjax.media.image import SHEET, pixels, png_sheet, save_png, sheet, to_uint8


def small_first(name: str = "small", codec: Codec = pixels) -> Codec:
    """A codec whose PNG of large pictures has one of the small pictures beside it.

    FILE_small.png is written before the large pictures are drawn, FILE.png after.

    Args:
      name: of the small pictures, which are among the raw conditions as f"{name}_drawn".
      codec: of the large ones.

    Returns:
      The codec.
    """
    large = png_sheet()

    def open(path: Path, num: int, raw: Mapping[str, np.ndarray]) -> Sink:
        sink, drawn = large.open(path, num, raw), raw.get(f"{name}_drawn")
        if drawn is None:
            return sink
        beside = path.with_name(f"{path.stem}_{name}{path.suffix}")
        save_png(beside, sheet(to_uint8(drawn[:SHEET]), raw))
        return Sink(sink.add, lambda: f"{sink.close()}, the small pictures in {beside}")

    return codec._replace(writers={**codec.writers, ".png": Writer(open)})
