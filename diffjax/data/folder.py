"""A folder of images as a source: class folders or flat, with captions or without."""

import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.data.image import Unreadable, check_header, decode, fit
from diffjax.data.source import Arrays, Source, hold, small
from diffjax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
METADATA = "metadata.jsonl"


class _Files:
    """Images read from their files when asked for, and what conditions each."""

    def __init__(self, root: Path, names: Sequence[str], size: int, channels: int, **conditions):
        self.root, self.names, self.conditions = root, names, conditions
        self.size, self.channels = size, channels

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            x = fit(decode(self.root / self.names[index], self.channels), self.size)
        except Unreadable as error:
            raise InputError(f"{self.root / self.names[index]}: {error}.") from error
        return {"x": x} | {name: values[index] for name, values in self.conditions.items()}


def folder(
    path: str | Path,
    size: int,
    channels: int = 3,
    skip_unreadable: bool = False,
    decode_all: bool = True,
) -> Source:
    """Images of a folder and those below it: PNG, JPEG and WebP, square, of 8 bits.

    Captions come from `metadata.jsonl` in the folder, lines of {"file_name": path below the
    folder, "caption" or "text": string}, or else from a text file beside each image, a.txt for
    a.png. Where there are none, the folders directly below are classes, numbered in the order
    of their names; where there are no such folders either, the images are unconditional.
    Names that begin with a dot are passed over. `decode` and `fit` of diffjax/data/image.py
    say what becomes of an image.

    Args:
      path: the folder.
      size: side in pixels to which the central square of each image is resized.
      channels: 3 for RGB, 1 for grey.
      skip_unreadable: warn of the images that cannot be read, by name, and leave them out.
      decode_all: decode every image once at the start, to find those that cannot be read. If
        False, only headers are read, and a damaged image stops the run when its turn comes.

    Returns:
      A source of bytes; in memory if it takes at most 1 GiB.

    Raises:
      InputError: no such folder or no images in it, images without a caption where others
        have one, images both in and beside class folders, or images that cannot be read: then
        it names each, with the reason.
    """
    root = Path(path)
    if channels not in (1, 3) or size < 1:
        raise InputError(f"expected a positive size and 1 or 3 channels; got {size}, {channels}.")
    names = _images(root)
    conditions, num_classes = _conditions(root, names)
    shape = (size, size, channels)
    pixels, bad = _check(root, names, shape, decode_all)
    if bad:
        _report(root, bad, len(names), skip_unreadable)
    good = [i for i, name in enumerate(names) if name not in bad]
    names = [names[i] for i in good]
    conditions = {key: [values[i] for i in good] for key, values in conditions.items()}
    if pixels:
        return Source(Arrays(x=np.stack(pixels), **conditions), shape, num_classes)
    files = _Files(root, names, size, channels, **conditions)
    return hold(Source(files, shape, num_classes, in_memory=False))


def _images(root: Path) -> list[str]:
    """Names of the image files below a folder, in one order on every machine."""
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of images; there is no such folder.")
    files = (p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and not p.is_dir())
    names = [p.relative_to(root).as_posix() for p in files]
    names = [name for name in names if not any(part[0] == "." for part in name.split("/"))]
    if not names:
        raise InputError(f"{root}: expected images ({', '.join(SUFFIXES)}); found none.")
    return sorted(names)


def _conditions(root: Path, names: Sequence[str]) -> tuple[dict[str, list], int]:
    """Captions, labels or nothing, and the number of classes."""
    captions = _captions(root, names)
    if any(captions):
        missing = [name for name, caption in zip(names, captions, strict=True) if not caption]
        if missing:
            raise InputError(
                f"{root}: {len(missing)} of {len(names)} images have no caption, such as "
                f"{missing[0]}; expected one for each or for none."
            )
        return {"caption": captions}, 0
    classes = [name.partition("/")[0] if "/" in name else None for name in names]
    numbers = {c: np.int32(i) for i, c in enumerate(sorted({c for c in classes if c}))}
    if not numbers:
        return {}, 0
    if None in classes:
        raise InputError(
            f"{root}: expected images in class folders or all in one; found "
            f"{names[classes.index(None)]} beside {len(numbers)} folders of images."
        )
    return {"label": [numbers[c] for c in classes]}, len(numbers)


def _captions(root: Path, names: Sequence[str]) -> list[str]:
    """The caption of each image, "" where it has none."""
    if (root / METADATA).is_file():
        captions = dict(_metadata(root / METADATA))
        return [captions.get(name, "") for name in names]
    texts = [(root / name).with_suffix(".txt") for name in names]
    try:
        return [text.read_text("utf-8").strip() if text.is_file() else "" for text in texts]
    except UnicodeDecodeError as error:
        raise InputError(f"{root}: expected captions in UTF-8; {error}.") from error


def _metadata(path: Path):
    """Pairs (file name, caption) of a JSONL file."""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            caption = row["caption"] if "caption" in row else row["text"]
            yield row["file_name"].removeprefix("./"), caption.strip()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'{path}, line {number}: expected {{"file_name": ..., "caption": ...}}; got '
                f"{line[:80].decode('utf-8', 'replace')!r}."
            ) from error


def _check(
    root: Path, names: Sequence[str], shape: tuple[int, int, int], decode_all: bool
) -> tuple[list[np.ndarray], dict[str, str]]:
    """The images, where they are few enough to be kept, and the reasons by name for the others."""
    from tqdm import tqdm

    keep = decode_all and small(len(names), shape)

    def attempt(name):
        try:
            if not decode_all:
                check_header(root / name)
                return None
            pixels = fit(decode(root / name, shape[2]), shape[0])
            return pixels if keep else None
        except Unreadable as error:
            return str(error)

    pixels, bad = [], {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = tqdm(pool.map(attempt, names), "reading images", len(names), False, disable=None)
        for name, result in zip(names, found, strict=True):
            if isinstance(result, str):
                bad[name] = result
            elif keep:
                pixels.append(result)
    return pixels, bad


def _report(root: Path, bad: dict[str, str], count: int, skip: bool) -> None:
    """Name the images that cannot be read: in an error, or in a warning if they are skipped."""
    lines = "".join(f"\n  {name}: {reason}" for name, reason in bad.items())
    if not skip:
        raise InputError(
            f"{root}: {len(bad)} of {count} images cannot be read; mend or remove them, or pass "
            f"skip_unreadable=True to leave them out:{lines}"
        )
    if len(bad) == count:
        raise InputError(f"{root}: none of the {count} images can be read:{lines}")
    warnings.warn(f"{root}: leaving out {len(bad)} of {count} images:{lines}", stacklevel=3)
