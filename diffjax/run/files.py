"""Files that samples are written to: their writers, and what is refused before drawing."""

from pathlib import Path

from diffjax.codec import Codec, Writer
from diffjax.errors import InputError


def writer_of(path: Path, codec: Codec) -> Writer:
    """The writer of a file, by its suffix, once it is sure that the file can be written.

    Args:
      path: the file that is asked for.
      codec: with the writers of its medium.

    Returns:
      The writer.

    Raises:
      InputError: another suffix, a folder, no such folder, or one that cannot be written to.
    """
    suffix = path.suffix.lower()
    if suffix not in codec.writers:
        raise InputError(
            f"{path} must end in one of {', '.join(codec.writers)}, which samples of this model "
            f"can be written as; got {suffix or 'no suffix'}."
        )
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} for {path.name} does not exist; make it.")
    there = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    if not there:
        path.unlink()
    return codec.writers[suffix]
