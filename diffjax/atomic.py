"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name when the block ends without an error.

    Until then it stands beside `path` under a hidden name of this process, so that a process that
    is killed leaves what was there before. What was written is on the disk before the name is.

    Args:
      path: of the file; its folder is there.

    Yields:
      The file, open for bytes.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any], indent: int = 2) -> None:
    """Write an object as JSON, by `atomic_write`."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=indent) + "\n").encode())
