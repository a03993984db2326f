"""Smaller pictures of a source's pictures, for the stages of a cascade."""

import numpy as np

from diffjax.cascade import level_name
from diffjax.data.source import Source, with_array
from diffjax.errors import InputError


def reduced(image: np.ndarray, size: int) -> np.ndarray:
    """A picture at a smaller size, by the antialiased bicubic filter of `image.fit`.

    Args:
      image: (H, W, C), uint8 or in [-1, 1].
      size: side of the result.

    Returns:
      (size, size, C) float32 in [-1, 1]; of bytes the same 256 values that bytes have.
    """
    from PIL import Image

    image = np.asarray(image)

    def channel(plane):
        small = Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(small, np.float32)

    small = np.stack([channel(plane) for plane in np.moveaxis(image, -1, 0)], axis=-1)
    return small / np.float32(127.5) - 1 if image.dtype == np.uint8 else np.clip(small, -1, 1)


def smaller(source: Source, size: int) -> Source:
    """The source with `reduced` pictures, of which the base of a cascade is trained.

    Args:
      source: of pictures (H, W, C) larger than `size`.
      size: side of the new ones.

    Raises:
      InputError: the pictures are not larger.
    """
    check_larger(source, size)
    made = with_array(source, "x", lambda image: reduced(image, size))
    return made._replace(shape=(size, size, source.shape[-1]))


def with_small(source: Source, size: int, name: str = "small") -> Source:
    """A source whose examples also have the small picture of their picture, and its level 0.

    Args:
      source: of pictures (H, W, C) larger than `size`.
      size: side of the small ones.
      name: of the new array, float32 in [-1, 1]; its level is f"{name}_level".

    Returns:
      The source; a small picture is made when its example is first read, and kept.

    Raises:
      InputError: the pictures are not larger.
    """
    check_larger(source, size)
    made = with_array(source, name, lambda image: reduced(image, size))
    return with_array(made, level_name(name), lambda image: np.float32(0))


def check_larger(source: Source, size: int) -> None:
    """Refuse pictures that cannot be made smaller.

    Raises:
      InputError: they are not (H, W, C), or one of their sides is at most `size`.
    """
    if len(source.shape) != 3 or min(source.shape[:2]) <= size or size < 1:
        raise InputError(
            f"a small picture of side {size} is made of larger ones (H, W, C); the data's are "
            f"{source.shape}. Give another size, or other data."
        )
