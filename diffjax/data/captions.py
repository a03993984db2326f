"""Captions of a folder of images: `metadata.jsonl`, or a text file beside each image."""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from diffjax.errors import InputError

METADATA = "metadata.jsonl"
OTHER_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def captions(root: Path, images: Sequence[str], others: Sequence[str]) -> list[str] | None:
    """The caption of each image, or None where there are none.

    Args:
      root: the folder.
      images: their names below it, with "/" between folders.
      others: names of the other files below it.

    Returns:
      A caption, not empty, for each image in its order.

    Raises:
      InputError: images without a caption where others have one, rows that match no image or
        one named twice, files that are not UTF-8, or metadata of another form or place.
    """
    if METADATA in others:
        found = _of_metadata(root, images)
    else:
        _refuse_metadata(root, others)
        found = _of_texts(root, images, others)
        if not any(found):
            return None
    missing = [name for name, caption in zip(images, found, strict=True) if not caption]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {len(images)} images have no caption, such as "
            f"{missing[0]}; expected one for each or for none."
        )
    return found


def text_names(images: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """The text file beside each image that has one: a.txt for a.png, in any case of its suffix."""
    texts = {}
    for name in others:
        stem, _, suffix = name.rpartition(".")
        if suffix.lower() == "txt":
            texts[_normal(stem)] = name
    stems = {name: _normal(name.rpartition(".")[0]) for name in images}
    return {name: texts[stem] for name, stem in stems.items() if stem in texts}


def _normal(name: str) -> str:
    """One spelling of what Unicode can write in two ways; file systems differ in theirs."""
    return unicodedata.normalize("NFC", name)


def _text(path: Path) -> str:
    """A file of UTF-8, without the mark that some editors put at its beginning."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8; {error}.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read; {error.strerror}.") from error
    if "\0" in text:
        raise InputError(f"{path}: expected text in UTF-8; it has null characters, as UTF-16 has.")
    return text


def _of_texts(root: Path, images: Sequence[str], others: Sequence[str]) -> list[str]:
    """The text beside each image, "" where there is none."""
    beside = text_names(images, others)
    return [_text(root / beside[name]).strip() if name in beside else "" for name in images]


def _of_metadata(root: Path, images: Sequence[str]) -> list[str]:
    """The caption of each image in METADATA, "" where it has no row."""
    path, known = root / METADATA, {_normal(name): name for name in images}
    lines, found = {}, {}
    for number, file_name, caption in _rows(path):
        name = known.get(_normal(str(PurePosixPath(file_name))))
        if name is None:
            raise InputError(
                f"{path}, line {number}: there is no image {file_name!r} below {root}; expected "
                f"paths below that folder, such as {_like(file_name, images)!r}."
            )
        if name in found:
            raise InputError(
                f"{path}, line {number}: {file_name!r} has a caption in line {lines[name]} "
                "already; leave one of the two."
            )
        lines[name], found[name] = number, caption
    if not found:
        raise InputError(f"{path}: expected a row for each image; it has none. Remove it.")
    return [found.get(name, "") for name in images]


def _rows(path: Path) -> Iterable[tuple[int, str, str]]:
    """(number of the line, file name, caption) of a JSONL file."""
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            caption = row["caption"] if "caption" in row else row["text"]
            yield number, "" + row["file_name"], caption.strip()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f'{path}, line {number}: expected {{"file_name": ..., "caption": ...}}; got '
                f"{line[:80]!r}."
            ) from error


def _like(name: str, images: Sequence[str]) -> str:
    """The image that was probably meant: of the same last name, but for its case."""
    last = name.replace("\\", "/").rpartition("/")[2].casefold()
    return next((n for n in images if n.rpartition("/")[2].casefold() == last), images[0])


def _refuse_metadata(root: Path, others: Sequence[str]) -> None:
    """Name metadata that would otherwise be passed over."""
    for name in others:
        last = name.rpartition("/")[2].lower()
        if last not in OTHER_METADATA:
            continue
        rows = [] if last.endswith("parquet") else _text(root / name).splitlines()
        row = rows[last.endswith("csv") :][:1]
        raise InputError(
            f"{root / name}: captions are read from {METADATA} in {root} itself; write its rows "
            'there, as {"file_name": path below that folder, "caption": ...}, or remove it'
            + (f"; its first row is {row[0][:80]!r}." if row else ".")
        )
