"""A folder of images as a source: class folders or flat, with captions or without."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from diffjax.data.captions import METADATA, captions, text_names
from diffjax.data.image import Unreadable, check_header, square
from diffjax.data.source import Arrays, Source, cache_in_memory, fits_in_memory
from diffjax.errors import InputError, sentence

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp")


class _Files:
    """Images read from their files when asked for, and what conditions each."""

    def __init__(self, root: Path, names: Sequence[str], size: int, channels: int, **arrays: list):
        self.root, self.names, self.arrays = root, names, arrays
        self.size, self.channels = size, channels

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            x = square(self.root / self.names[index], self.size, self.channels)
        except Unreadable as error:
            raise InputError(f"{self.root / self.names[index]}: {error}.") from error
        return {"x": x} | {name: values[index] for name, values in self.arrays.items()}


class _Listing(NamedTuple):
    """Names below a folder, sorted, with "/" between folders.

    Attributes:
      images: files with a suffix of SUFFIXES.
      others: the other files.
      folders: those directly in it.
    """

    images: list[str]
    others: list[str]
    folders: list[str]


def folder(
    path: str | Path,
    size: int,
    channels: int = 3,
    skip_unreadable: bool = False,
    decode_all: bool = True,
    conditional: bool = True,
) -> Source:
    """Images of a folder and those below it: PNG, JPEG and WebP, square, of 8 bits.

    Captions come from `metadata.jsonl` in the folder, lines of {"file_name": path below the
    folder, "caption" or "text": string}, or else from a text file beside each image, a.txt for
    a.png. Where there are none, the folders directly below are classes, numbered in the order
    of their names, empty ones too; where there are no images in folders, they are
    unconditional. Links are followed, and names that begin with a dot are passed over. A
    warning counts the files that are not read. `square` of diffjax/data/image.py says what
    becomes of an image.

    Args:
      path: the folder.
      size: side in pixels to which the central square of each image is resized.
      channels: 3 for RGB, 1 for grey.
      skip_unreadable: warn of the images that cannot be read, by name, and leave them out.
      decode_all: decode every image once at the start, to find those that cannot be read. If
        False, only headers are read, and a damaged image stops the run when its turn comes.
      conditional: False leaves captions and classes aside.

    Returns:
      A source of bytes; in memory if it takes at most 1 GiB.

    Raises:
      InputError: no such folder or no images in it, images without a caption where others
        have one, captions without an image, images both in and beside class folders, or images
        that cannot be read: then it names each, with the reason.
    """
    root = Path(path)
    if channels not in (1, 3) or size < 1:
        raise InputError(f"expected a positive size and 1 or 3 channels; got {size}, {channels}.")
    listing = _list(root)
    conditions, num_classes = _conditions(root, listing) if conditional else ({}, 0)
    _warn_of_others(root, listing)
    names, shape = listing.images, (size, size, channels)
    pixels, bad = _check(root, names, shape, decode_all)
    if bad:
        _report(root, bad, len(names), skip_unreadable)
    good = [i for i, name in enumerate(names) if name not in bad]
    names = [names[i] for i in good]
    conditions = {key: [values[i] for i in good] for key, values in conditions.items()}
    if pixels:
        return Source(Arrays(x=np.stack(pixels), **conditions), shape, num_classes)
    files = _Files(root, names, size, channels, **conditions)
    return cache_in_memory(Source(files, shape, num_classes, in_memory=False))


def _list(root: Path) -> _Listing:
    """What there is below a folder, in one order on every machine."""
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of images; there is no such folder.")
    try:
        names = sorted(_walk(root, "", ()))
        folders = sorted(entry.name for entry in _entries(root) if entry.is_dir())
    except OSError as error:
        raise InputError(f"{error.filename or root}: cannot be read; {sentence(error)}.") from error
    images = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    others = sorted(set(names).difference(images))
    if not images:
        held = f", but {_counts(others)}" if others else ""
        raise InputError(f"{root}: expected images ({', '.join(SUFFIXES)}); found none{held}.")
    return _Listing(images, others, folders)


def _entries(folder: Path) -> list[os.DirEntry]:
    """What a folder holds but for hidden names, pipes and devices."""
    with os.scandir(folder) as entries:
        return [
            entry
            for entry in entries
            if entry.name[0] != "." and (entry.is_dir() or entry.is_file() or entry.is_symlink())
        ]


def _walk(folder: Path, prefix: str, above: tuple) -> Iterator[str]:
    """Names of the files below a folder, through links."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise InputError(f"{folder} is a link to a folder that it is in itself; remove the link.")
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _walk(Path(entry), f"{prefix}{entry.name}/", (*above, here))
        else:
            yield prefix + entry.name


def _conditions(root: Path, listing: _Listing) -> tuple[dict[str, list], int]:
    """Captions, labels or nothing, and the number of classes."""
    texts = captions(root, listing.images, listing.others)
    if texts is not None:
        return {"caption": texts}, 0
    classes = [name.partition("/")[0] if "/" in name else None for name in listing.images]
    if not any(classes):
        return {}, 0
    if None in classes:
        raise InputError(
            f"{root}: expected images in class folders or all in one; found "
            f"{listing.images[classes.index(None)]} beside {len(set(classes)) - 1} folders of "
            "images."
        )
    lost = [n for n in listing.others if "/" not in n and not (root / n).exists()]
    if lost:
        raise InputError(f"{root / lost[0]}: the link leads nowhere; mend it or remove it.")
    empty = sorted(set(listing.folders) - set(classes))
    if empty:
        _warn(f"{root}: {len(empty)} class folders hold no image, such as {empty[0]}; each keeps "
              "its number. Remove them if they are not classes.")  # fmt: skip
    numbers = {name: np.int32(i) for i, name in enumerate(listing.folders)}
    return {"label": [numbers[c] for c in classes]}, len(numbers)


def _warn_of_others(root: Path, listing: _Listing) -> None:
    """Count the files that are neither images nor captions."""
    used = {METADATA, *text_names(listing.images, listing.others).values()}
    others = [name for name in listing.others if name not in used]
    if others:
        _warn(f"{root}: not read: {_counts(others)}; images are {', '.join(SUFFIXES)}.")


def _counts(names: Sequence[str]) -> str:
    """How many there are of each suffix, with an example."""
    suffixes = [PurePosixPath(name).suffix.lower() for name in names]
    first = dict(zip(reversed(suffixes), reversed(names), strict=True))
    count = Counter(suffixes).most_common(5)
    return ", ".join(f"{n} {s or 'without suffix'} such as {first[s]}" for s, n in count)


def _warn(text: str) -> None:
    """A warning that points at the caller of `folder`."""
    warnings.warn(text, stacklevel=4)


def _check(
    root: Path, names: Sequence[str], shape: tuple[int, int, int], decode_all: bool
) -> tuple[list[np.ndarray], dict[str, str]]:
    """The images, where they are few enough to be kept, and the reasons by name for the others."""
    from tqdm import tqdm

    keep = decode_all and fits_in_memory(len(names), shape)

    def attempt(name):
        try:
            if not decode_all:
                check_header(root / name)
                return None
            pixels = square(root / name, shape[0], shape[2])
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
    _warn(f"{root}: leaving out {len(bad)} of {count} images:{lines}")
