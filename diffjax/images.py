"""Pictures of samples: float arrays in [-1, 1] to PNG grids and GIF animations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax.types import Array

MIN_TILE = 48  # pixels: smaller images are enlarged in the grid, by a whole factor


def to_uint8(x: Array | np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] to the nearest of 0 .. 255; what lies outside is clipped."""
    return np.round((np.clip(np.asarray(x, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def grid(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Tile images row by row on a white ground.

    Args:
      images: (N, H, W, C) uint8, C 1 or 3.
      columns: images per row.
      gap: pixels between tiles, before enlarging.

    Returns:
      (H', W', C) uint8; tiles under 48 pixels are enlarged by a whole factor.
    """
    n, h, w, c = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + gap) + gap, (i % columns) * (w + gap) + gap
        sheet[top : top + h, left : left + w] = image
    factor = max(1, -(-MIN_TILE // h))
    return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def save_png(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, C) uint8 as a PNG; C 1 is grey."""
    _pil(image).save(path)


def save_gif(path: str | Path, frames: Sequence[np.ndarray], seconds: float = 3.0) -> None:
    """Write frames (H, W, C) uint8 as an endless GIF that rests on the last.

    Args:
      path: the file.
      frames: in order.
      seconds: length of one round without the rest, which is 1.5 s.
    """
    first, *rest = [_pil(frame) for frame in frames]
    each = max(20, int(1000 * seconds / len(frames)))
    durations = [each] * len(rest) + [each + 1500]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0)


def _pil(image: np.ndarray):
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
