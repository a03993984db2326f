"""Pictures of the report, as data URIs."""

import base64
import io
from collections.abc import Sequence

import numpy as np

SHOWN, SMALL = 96, 64
"""Pixels of a side at which pictures are shown at least, and up to which they are kept exact."""


def uri(image: np.ndarray, most: int = 128) -> str:
    """An image (H, W, C) uint8 as a data URI, small ones enlarged by a whole factor.

    Args:
      image: the picture.
      most: pixels of its longer side at most.

    Returns:
      A PNG of a small image, which is exact, or a WebP.
    """
    from PIL import Image

    size = max(image.shape[:2])
    factor = max(1, -(-SHOWN // size))
    image = (image[..., 0] if image.shape[-1] == 1 else image).repeat(factor, 0).repeat(factor, 1)
    picture = Image.fromarray(image)
    if size > most:
        picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    return _encoded(picture, "PNG" if size <= SMALL else "WEBP")


def strip(images: Sequence[np.ndarray], most: int = 96, gap: int = 6) -> str:
    """Images of one size in a row, as one picture.

    Args:
      images: (H, W, C) uint8 each.
      most: pixels of an image's longer side at most.
      gap: transparent pixels between them, after enlarging.

    Returns:
      A data URI.
    """
    from PIL import Image

    size = max(images[0].shape[:2])
    factor = max(1, -(-48 // size))
    tiles = []
    for image in images:
        image = image[..., 0] if image.shape[-1] == 1 else image
        tile = Image.fromarray(image.repeat(factor, 0).repeat(factor, 1))
        if size > most:
            tile.thumbnail((most, most), Image.Resampling.LANCZOS)
        tiles.append(tile.convert("RGBA"))
    width, height = tiles[0].size
    sheet = Image.new("RGBA", (len(tiles) * (width + gap) - gap, height))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i * (width + gap), 0))
    return _encoded(sheet, "PNG" if size <= SMALL else "WEBP")


def _encoded(picture, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"optimize": True} if kind == "PNG" else {"quality": 88}))
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{text}"
