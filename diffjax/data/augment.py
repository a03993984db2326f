"""Augmentations: functions (example, rng) -> example, given to `batches` in a tuple.

An example is a dict with "x" of shape (..., H, W, C): an image, or a video whose frames are
all changed alike. Any function of this signature is an augmentation; one with options is made
by a function that returns it. All its randomness comes from `rng`, so that a batch depends on
the seed and its step alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffjax.errors import InputError

Example = dict[str, Any]
Augmentation = Callable[[Example, np.random.Generator], Example]


def flip(example: Example, rng: np.random.Generator, names: Sequence[str] = ("x",)) -> Example:
    """Mirror left to right with probability 1/2.

    Args:
      example: its named arrays have shape (..., H, W, C).
      rng: of this example.
      names: arrays that are mirrored together, such as an image and its mask.

    Returns:
      The example, with copies of the arrays that were mirrored.
    """
    if rng.random() >= 0.5:
        return example
    return example | {name: _mirrored(np.asarray(example[name])) for name in names}


def _mirrored(x: np.ndarray) -> np.ndarray:
    """x with its columns in reverse, copied a channel at a time: numpy copies short runs slowly."""
    out = np.empty_like(x)
    for channel in range(x.shape[-1]):
        out[..., channel] = x[..., ::-1, channel]
    return out


def random_crop(size: int, names: Sequence[str] = ("x",)) -> Augmentation:
    """Cut a square window out of each example, every place being equally likely.

    Args:
      size: side of the window in pixels, at least 1.
      names: arrays (..., H, W, C) of one height and width that are cut at the same place.

    Returns:
      The augmentation; its arrays have shape (..., size, size, C).

    Raises:
      InputError: a size below 1; when applied, an example smaller than the window.
    """
    if size < 1:
        raise InputError(f"random_crop: expected a size of at least 1 pixel; got {size}.")

    def crop(example, rng):
        height, width = example[names[0]].shape[-3:-1]
        if min(height, width) < size:
            raise InputError(
                f"random_crop: expected images of at least {size} x {size} pixels; got "
                f"{height} x {width}; read them larger or crop to less."
            )
        top, left = rng.integers((height - size + 1, width - size + 1))
        window = (..., slice(top, top + size), slice(left, left + size), slice(None))
        return example | {name: example[name][window] for name in names}

    return crop


def random_shift(pixels: int, names: Sequence[str] = ("x",)) -> Augmentation:
    """Move each example by up to so many pixels down or up and right or left.

    Each of the two shifts is uniform on -pixels, ..., pixels. What comes in at an edge is the
    mirror image of what lies behind it.

    Args:
      pixels: largest shift, at least 1 and below the height and width.
      names: arrays (..., H, W, C) that are moved together.

    Returns:
      The augmentation; shapes stay as they are.

    Raises:
      InputError: less than 1 pixel; when applied, an example that is not larger than the shift.
    """
    if pixels < 1:
        raise InputError(f"random_shift: expected at least 1 pixel; got {pixels}.")

    def moved(x, down, right):
        if min(x.shape[-3:-1]) <= pixels:
            raise InputError(
                f"random_shift: expected images larger than the shift of {pixels} pixels; got "
                f"{x.shape[-3]} x {x.shape[-2]}; shift by less."
            )
        margin = ((0, 0),) * (x.ndim - 3) + ((pixels, pixels),) * 2 + ((0, 0),)
        top, left = pixels - down, pixels - right
        return np.pad(x, margin, "reflect")[
            ..., top : top + x.shape[-3], left : left + x.shape[-2], :
        ]

    def shift(example, rng):
        down, right = rng.integers(-pixels, pixels + 1, 2)
        return example | {name: moved(example[name], down, right) for name in names}

    return shift
