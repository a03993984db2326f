"""An image file to pixels of one size, or the reason why not."""

from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffjax.errors import sentence

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 1 << 26  # decoded to 256 MiB of RGBA; Pillow itself warns above 89 million


class Unreadable(ValueError):
    """Why an image cannot be used."""


def decode(file: str | Path | BytesIO, channels: int = 3) -> "Image.Image":
    """Decode an image to 8 bits, upright.

    The orientation of its EXIF data is applied, 16 bits are scaled to 8, palettes and CMYK
    become RGB, what is transparent shows white, and of an animation the first frame is taken.
    Colour profiles are not applied.

    Args:
      file: a PNG, JPEG or WebP file, whatever its suffix.
      channels: 3 for RGB, 1 for grey.

    Returns:
      A Pillow image.

    Raises:
      Unreadable: with the reason. An image of more than MAX_PIXELS is refused by the size in
        its header, before any of it is decoded.
    """
    from PIL import ImageOps

    with _reasons():
        with _open(file) as image:
            _scale_transparency(image)
            upright = ImageOps.exif_transpose(image)
        return _eight_bits(upright, channels)


def check_header(path: str | Path) -> None:
    """Read as much of an image as tells its format and size.

    Raises:
      Unreadable: with the reason.
    """
    with _reasons():
        _open(path).close()


@contextmanager
def _reasons():
    """Whatever a decoder does with a damaged file becomes the reason."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(sentence(error)) from error


def _open(file: str | Path | BytesIO) -> "Image.Image":
    """The image with its header read and its pixels not."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        empty = isinstance(file, str | Path) and Path(file).stat().st_size == 0
        reason = "an empty file" if empty else "not a PNG, JPEG or WebP image"
        raise Unreadable(reason) from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"more than the {MAX_PIXELS:,} pixels allowed") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Unreadable(
            f"{image.width} x {image.height} are more than the {MAX_PIXELS:,} pixels allowed"
        )
    return image


def _scale_transparency(image: "Image.Image") -> None:
    """Bring a PNG's transparent grey or colour to the scale that Pillow gives its pixels.

    Pillow spreads 2 and 4 bits over 0 .. 255 and keeps the upper byte of 16-bit colours, but
    not so the one value that the tRNS chunk names: so of a 16-bit colour the upper bytes decide.
    """
    value, raw = image.info.get("transparency"), image.tile[0][3] if image.tile else None
    if image.format != "PNG" or value is None:
        return
    if raw in ("L;2", "L;4"):
        image.info["transparency"] = value * {"L;2": 85, "L;4": 17}[raw]
    elif raw == "RGB;16B":
        image.info["transparency"] = tuple(v >> 8 for v in value)


def _eight_bits(image: "Image.Image", channels: int) -> "Image.Image":
    """RGB or grey of 8 bits, over white."""
    from PIL import Image

    if image.mode.startswith("I"):  # one channel of 16 bits
        values = np.asarray(image).astype(np.uint32)
        values[values == image.info.get("transparency", -1)] = 65535
        image = Image.fromarray(((values + 128) // 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB" if channels == 3 else "L")


def fit(image: "Image.Image", size: int) -> np.ndarray:
    """The central square of an image, resized by an antialiased bicubic filter.

    Args:
      image: RGB or grey, of 8 bits.
      size: side of the result; where it is that of the square, the pixels are kept as they are.

    Returns:
      (size, size, channels) uint8.
    """
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    pixels = np.array(square.resize((size, size), Image.Resampling.BICUBIC))
    return pixels.reshape(size, size, -1)
