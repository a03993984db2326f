"""An image file to pixels of one size, or the reason why not."""

import math
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffjax.errors import sentence

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
ORIENTATION = 0x0112  # of EXIF
Box = tuple[float, float, float, float]
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
    with _reasons(), _open(file) as image:
        return _eight_bits(_upright(image), channels)


def square(file: str | Path | BytesIO, size: int, channels: int = 3) -> np.ndarray:
    """`fit(decode(file, channels), size)`, in less time where the file is a large JPEG.

    Such a file is decoded at a half, a quarter or an eighth of its size, by libjpeg's scaled
    transforms, so long as the square keeps at least twice the side of the result. Pixels differ by
    less than 1 of 255 on average, which a test shows on photos.

    Args:
      file: as for `decode`, like the channels and the errors.
      size: as for `fit`.
      channels: 3 for RGB, 1 for grey.

    Returns:
      (size, size, channels) uint8.
    """
    with _reasons(), _open(file) as image:
        box = _reduce(image, size)
        return fit(_eight_bits(_upright(image), channels), size, box)


def _reduce(image: "Image.Image", size: int) -> Box | None:
    """Have a JPEG decoded at a part of its size; its central square there, None for as ever."""
    scale = next((n for n in (8, 4, 2) if min(image.size) >= 2 * size * n), 1)
    if scale == 1 or image.format != "JPEG":
        return None
    box = tuple(edge / scale for edge in _central(image.size))
    whole = all(edge.is_integer() for edge in (*box, image.width / scale, image.height / scale))
    turned = image.getexif().get(ORIENTATION, 1) != 1
    if turned and not whole:
        return None
    image.draft(None, (image.width // scale, image.height // scale))
    return None if turned else box


def _central(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the central square."""
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


def _upright(image: "Image.Image") -> "Image.Image":
    """The pixels of an opened image, turned as its EXIF data say."""
    from PIL import ImageOps

    _scale_transparency(image)
    return ImageOps.exif_transpose(image)


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


def fit(image: "Image.Image", size: int, box: Box | None = None) -> np.ndarray:
    """The central square of an image, resized by an antialiased bicubic filter.

    Args:
      image: RGB or grey, of 8 bits.
      size: side of the result; where it is that of the square, the pixels are kept as they are.
      box: the square, where it is not the central one: left, top, right and bottom.

    Returns:
      (size, size, channels) uint8.
    """
    from PIL import Image

    left, top, right, bottom = box or _central(image.size)
    x, y = math.floor(left), math.floor(top)
    cut = image.crop((x, y, math.ceil(right), math.ceil(bottom)))  # nothing outside is seen
    within = (left - x, top - y, right - x, bottom - y)
    pixels = np.array(cut.resize((size, size), Image.Resampling.BICUBIC, within))
    return pixels.reshape(size, size, -1)
