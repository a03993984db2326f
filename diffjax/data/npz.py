"""Images and what conditions them in an .npz file."""

import warnings
from pathlib import Path

import numpy as np

from diffjax.data.image import fit
from diffjax.data.source import Arrays, Source
from diffjax.errors import InputError

WANTED = "an .npz file with `x` (N, H, W, C) uint8 and optionally `label` (N,) int"


def array(path: str | Path, size: int | None = None) -> Source:
    """Images of an .npz file: `x` (N, H, W, C) uint8, and optionally `label` (N,) int.

    Other arrays of N rows, such as masks or captions, become part of the examples.

    Args:
      path: the file.
      size: side in pixels to which the central square of each image is resized by an
        antialiased bicubic filter; None keeps the images as they are.

    Returns:
      A source of the bytes, which the pipeline scales to [-1, 1].

    Raises:
      InputError: no such file, not an npz of such arrays, or no examples; images that are not
        grey or RGB and have to be resized.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file}
    except Exception as error:
        raise InputError(f"{path}: expected {WANTED}; could not read it: {error}") from error
    _check(path, arrays)
    left = [name for name, a in arrays.items() if a.shape[:1] != arrays["x"].shape[:1]]
    if left:
        text = f"{path}: not read, for they do not have a row for each image: {left}"
        warnings.warn(text, stacklevel=2)
    arrays = {name: a for name, a in arrays.items() if name not in left}
    if size is not None:
        arrays["x"] = _resized(path, arrays["x"], size)
    num_classes = 0
    if "label" in arrays:
        arrays["label"] = arrays["label"].astype(np.int32)
        num_classes = int(arrays["label"].max()) + 1
    return Source(Arrays(**arrays), arrays["x"].shape[1:], num_classes)


def _check(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Refuse arrays that are not images with labels."""
    x, label = arrays.get("x"), arrays.get("label")
    if x is None or x.ndim != 4 or x.dtype != np.uint8 or not x.size:
        got = f"no array `x` among {sorted(arrays)}" if x is None else f"`x` {x.shape} {x.dtype}"
        raise InputError(f"{path}: expected {WANTED}, at least one image; got {got}.")
    if label is None:
        return
    if label.shape != x.shape[:1] or label.dtype.kind not in "iu":
        raise InputError(f"{path}: expected {WANTED}; got `label` {label.shape} {label.dtype}.")
    if label.min() < 0 or label.max() >= 2**31 - 1:
        raise InputError(
            f"{path}: expected labels numbered from 0; got {label.min()} to {label.max()}."
        )


def _resized(path: str | Path, x: np.ndarray, size: int) -> np.ndarray:
    """`fit` of each image, unless they are of the size already."""
    from PIL import Image

    if x.shape[1:3] == (size, size):
        return x
    if size < 1 or x.shape[3] not in (1, 3):
        raise InputError(
            f"{path}: expected a positive size, and images of 1 or 3 channels to resize; got "
            f"{size} and {x.shape[3]} channels."
        )
    grey = x.shape[3] == 1
    return np.stack([fit(Image.fromarray(a[..., 0] if grey else a), size) for a in x])


def latents(path: str | Path, num_classes: int) -> Source:
    """Latents of an .npz file, as they are: `x` (N, h, w, C) float, and `label` (N,) int.

    Args:
      path: the file.
      num_classes: number of classes.

    Returns:
      A source in memory.
    """
    with np.load(path, allow_pickle=False) as file:
        x, label = file["x"].astype(np.float32), file["label"].astype(np.int32)
    return Source(Arrays(x=x, label=label), x.shape[1:], num_classes)
