"""Pictures, masks and measurements from files, refused where they are not the model's."""

from pathlib import Path

import numpy as np

from diffjax.errors import InputError, sentence
from diffjax.media.image import load_image

MODES = {1: "L", 3: "RGB"}
KINDS = {1: "grey (L)", 3: "colour (RGB)"}


def read_pictures(path: Path, shape: tuple[int, int, int], fit: bool, flag: str) -> np.ndarray:
    """The picture of a file, or the pictures of an npz, as they are diffused.

    Args:
      path: a file that Pillow reads, or an .npz of `samples` (N, H, W, C) such as sample.py writes:
        uint8, or floats in [-1, 1].
      shape: (H, W, C) of one.
      fit: resize and convert a picture instead of refusing it.
      flag: that names the file, for messages.

    Returns:
      (N, H, W, C) float32 in [-1, 1].

    Raises:
      InputError: it cannot be read, or is of another size or mode.
    """
    if path.suffix == ".npz":
        images = read_array(path, "samples", flag)
        if images.dtype == np.uint8:
            images = images / np.float32(127.5) - 1
        _refuse_shape(images.shape, ("N", *shape), flag, path)
        return images.astype(np.float32)
    if not fit:
        _refuse_other(path, shape, flag)
    return load_image(path, shape[:2], shape[2])[None]


def read_mask(path: Path, shape: tuple[int, int, int], flag: str = "--mask") -> np.ndarray:
    """A mask from a grey picture: 1 where the picture is known (black), 0 where it is drawn anew.

    Returns:
      (1, H, W, 1) float32.

    Raises:
      InputError: it is of another size or mode, or leaves nothing to draw, or nothing known.
    """
    mask = (read_pictures(path, (*shape[:2], 1), False, flag)[:1] < 0).astype(np.float32)
    if mask.all() or not mask.any():
        colour, what = ("black", "drawn anew") if mask.all() else ("white", "known")
        raise InputError(
            f"{flag} {path} is all {colour}, so that nothing is {what}; white is drawn anew and "
            "black kept."
        )
    return mask


def read_measurement(path: Path, shape: tuple[int, ...], fit: bool) -> np.ndarray:
    """What was measured: a picture, or an npz of `measurement` (N, ...).

    Args:
      path: of the file.
      shape: of one measurement, as the operator makes it.
      fit: resize and convert a picture instead of refusing it.

    Returns:
      (N, *shape) float32.

    Raises:
      InputError: it does not agree with the operator.
    """
    flag = "--measurement"
    if path.suffix == ".npz":
        found = read_array(path, "measurement", flag)
        if found.dtype == np.uint8:
            found = found / np.float32(127.5) - 1
        _refuse_shape(found.shape, ("N", *shape), flag, path)
        return found.astype(np.float32)
    if len(shape) != 3:
        raise InputError(
            f"--measurement must be an .npz of `measurement` {('N', *shape)} for this operator; "
            f"got {path}."
        )
    return read_pictures(path, shape, fit, flag)


def read_array(path: Path, name: str, flag: str) -> np.ndarray:
    """One array of an npz."""
    try:
        with np.load(path) as file:
            return file[name]
    except Exception as error:
        raise InputError(f"{flag} {path} holds no array `{name}`: {sentence(error)}") from error


def _refuse_shape(got: tuple, wanted: tuple, flag: str, path: Path) -> None:
    if len(got) != len(wanted) or got[1:] != wanted[1:] or not got[0]:
        shown = ", ".join(map(str, wanted))
        raise InputError(f"{flag} {path} must have the shape ({shown}) here; got {got}.")


def _refuse_other(path: Path, shape: tuple[int, int, int], flag: str) -> None:
    """Refuse a picture of another size or mode."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            size, mode = file.size[::-1], file.mode
    except Exception as error:
        raise InputError(f"{path} is not a picture that can be read: {sentence(error)}") from error
    if size != shape[:2] or mode != MODES[shape[2]]:
        hint = "" if flag == "--mask" else ", or add --fit to resize and convert it"
        raise InputError(
            f"{flag} {path} must be {shape[0]}x{shape[1]} pixels, {KINDS[shape[2]]}; got "
            f"{size[0]}x{size[1]}, {mode}. Change the file{hint}."
        )
