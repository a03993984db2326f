"""A user's own images, in whichever of two forms they are."""

from pathlib import Path

from diffjax.data.folder import folder
from diffjax.data.npz import array
from diffjax.data.source import Arrays, Source
from diffjax.errors import InputError


def images(path: str | Path, size: int, conditional: bool = False) -> Source:
    """Images of a folder (`folder`) or of an .npz file (`array`), square and of one size.

    Args:
      path: a folder or an .npz file.
      size: side in pixels to which the central square of each image is resized by an
        antialiased bicubic filter.
      conditional: whether examples have what conditions them: the labels or captions of a
        folder, all the arrays of a file.

    Returns:
      A source of bytes: RGB from a folder, the file's channels from a file.

    Raises:
      InputError: neither of the two, what `folder` and `array` refuse, or nothing that
        conditions where it is asked for.
    """
    path = Path(path)
    if path.is_dir():
        source = folder(path, size, conditional=conditional)
    elif path.suffix.lower() == ".npz":
        source = array(path, size)
        if not conditional:
            source = source._replace(examples=Arrays(x=source.examples.arrays["x"]), num_classes=0)
    else:
        raise InputError(f"{path}: expected a folder of images or an .npz file; it is neither.")
    if conditional and set(source.examples[0]) == {"x"}:
        raise InputError(
            f"{path}: expected classes or captions; there are none. Put each class in a folder of "
            "its own or captions beside the images, or train without conditions."
        )
    return source
