"""The 1,906 base emoji of Google's Noto set with captions, and how they are prepared.

Pictures and names are those of the npm package emoji-datasource-google (pictures Apache-2.0),
English names and keywords those of Unicode's CLDR, npm package cldr-annotations-full (Unicode-3.0).
"""

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.atomic import atomic_write
from diffjax.data.image import decode
from diffjax.data.npz import array
from diffjax.data.source import Arrays, Source
from diffjax.errors import InputError, sentence

ARCHIVES = {
    "emoji-datasource-google@16.0.0": (
        "emoji-datasource-google-16.0.0.tgz",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
    "cldr-annotations-full@48.2.0": (
        "cldr-annotations-full-48.2.0.tgz",
        "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    ),
}
"""npm package -> (its tarball, the tarball's SHA-256)."""

PICTURES, NAMES = "package/img/google/64", "package/emoji.json"
ANNOTATIONS = "package/annotations/en/annotations.json"
FILE = "emoji.npz"
HELD_OUT = 10  # one picture of so many is of the test split
KEYWORDS = 6  # of a caption at most


def emoji_folder(data_dir: str | Path | None = None) -> Path:
    """Where the set stands: `emoji` in data_dir, in TFDS_DATA_DIR or in ~/tensorflow_datasets."""
    usual = os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"
    return Path(data_dir or usual).expanduser() / "emoji"


def emoji(
    split: str = "train",
    size: int = 64,
    data_dir: str | Path | None = None,
) -> Source:
    """The base emoji, without skin tones, over white.

    Args:
      split: "test" is the tenth whose pixels' SHA-256 says so, the same for everyone; "train" is
        the rest.
      size: side in pixels, by an antialiased bicubic filter.
      data_dir: where the set was prepared; default that of tensorflow-datasets.

    Returns:
      A source of RGB bytes with `caption`, the usual one; `captions` (K,), all its forms and then
      empty strings, of which `one_caption` draws; `label`, one of nine categories, with its name
      `category`; and `code`, its code points.

    Raises:
      InputError: the set is not prepared, or there is no such split.
    """
    path = emoji_folder(data_dir) / FILE
    if not path.is_file():
        where = "" if data_dir is None else f" --data-dir {data_dir}"
        raise InputError(
            f"the emoji are not prepared in {path.parent}; "
            f"run `python -m diffjax.data.prepare emoji{where}` once."
        )
    if split not in ("train", "test", "all"):
        raise InputError(f"emoji: expected the split train, test or all; got {split!r}.")
    source = array(path, size)
    arrays = dict(source.examples.arrays)
    held_out = arrays.pop("held_out")
    rows = {"all": held_out | True, "test": held_out, "train": ~held_out}[split]
    return source._replace(examples=Arrays(**{name: a[rows] for name, a in arrays.items()}))


def one_caption(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Draw the caption among its forms, each equally likely: an augmentation.

    Args:
      example: with `captions` (K,), strings, the empty ones left aside.
      rng: of this example.

    Returns:
      The example with `caption` drawn anew.
    """
    forms = [text for text in example["captions"] if text]
    return example | {"caption": forms[rng.integers(len(forms))]}


# --- preparation ------------------------------------------------------------------------


def captions_of(entry: Mapping[str, Any], annotation: Mapping[str, Any] | None) -> list[str]:
    """The captions of one emoji, each once, the usual one first.

    CLDR's name; that name with up to six keywords; the name of Unicode's list; its short name.
    Those that CLDR leaves to be derived, such as flags, have their kind as the keyword.

    Args:
      entry: of emoji.json.
      annotation: CLDR's, with `tts` and `default`; None where it has none.

    Returns:
      One to four captions.
    """
    listed = " ".join(entry["name"].lower().split())
    name = annotation["tts"][0] if annotation else listed
    words = annotation["default"] if annotation else [entry["subcategory"].replace("-", " ")]
    keywords = [w for w in words if w != name and any(c.isalnum() for c in w)][:KEYWORDS]
    found = [name, f"{name}: {', '.join(keywords)}" if keywords else name, listed]
    if entry["category"] != "Flags":  # whose short names are codes
        found.append(entry["short_name"].replace("_", " ").replace("-", " "))
    return list(dict.fromkeys(found))


def in_test(pixels: np.ndarray) -> bool:
    """Whether a picture is held out: its SHA-256, so that equal pictures are on one side."""
    return int(hashlib.sha256(pixels.tobytes()).hexdigest(), 16) % HELD_OUT == 0


def records(
    entries: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Mapping[str, Any]],
    picture: Callable[[str], bytes],
) -> dict[str, np.ndarray]:
    """The arrays of the set, a row for each emoji that is not a component.

    Args:
      entries: emoji.json.
      annotations: CLDR's, by the emoji itself.
      picture: name of a PNG file -> its bytes.

    Returns:
      `x` (N, 64, 64, 3) uint8, `label`, `category`, `code`, `caption`, `captions` (N, K) and
      `held_out`.
    """
    base = [e for e in entries if e["category"] != "Component" and e["has_img_google"]]
    categories = sorted({e["category"] for e in base})
    x = np.stack([np.array(decode(BytesIO(picture(e["image"])))) for e in base])

    def annotated(entry):
        text = "".join(chr(int(code, 16)) for code in entry["unified"].split("-"))
        return annotations.get(text) or annotations.get(text.replace("\ufe0f", ""))

    texts = [captions_of(e, annotated(e)) for e in base]
    most = max(map(len, texts))
    return {
        "x": x,
        "label": np.array([categories.index(e["category"]) for e in base], np.int32),
        "category": np.array([e["category"] for e in base]),
        "code": np.array([e["unified"] for e in base]),
        "caption": np.array([forms[0] for forms in texts]),
        "captions": np.array([forms + [""] * (most - len(forms)) for forms in texts]),
        "held_out": np.array([in_test(pixels) for pixels in x]),
    }


def prepare_emoji(data_dir: str | Path | None = None) -> Path:
    """Write the set as one npz file, unless it is there already.

    The two tarballs are taken from the set's folder where they lie there, or else packed by npm.

    Args:
      data_dir: where to; default TFDS_DATA_DIR or ~/tensorflow_datasets.

    Returns:
      The file.

    Raises:
      InputError: a tarball cannot be had, or is not the one that is expected.
    """
    folder = emoji_folder(data_dir)
    path = folder / FILE
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as packed:
        pictures, cldr = [archive(package, folder, Path(packed)) for package in ARCHIVES]
        with tarfile.open(cldr) as file:
            text = json.load(file.extractfile(ANNOTATIONS))["annotations"]["annotations"]
        with tarfile.open(pictures) as file:
            members = {member.name: member for member in file.getmembers()}

            def read(name):
                return file.extractfile(members[name]).read()

            entries = json.loads(read(NAMES))
            arrays = records(entries, text, lambda name: read(f"{PICTURES}/{name}"))
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def archive(package: str, folder: Path, packed: Path) -> Path:
    """The tarball of an npm package: the one in `folder`, or packed by npm into `packed`.

    Raises:
      InputError: npm cannot pack it, or its SHA-256 is another.
    """
    name, expected = ARCHIVES[package]
    path = folder / name
    if not path.is_file():
        path = packed / name
        try:
            command = ["npm", "pack", "--silent", package]
            subprocess.run(command, cwd=packed, check=True, capture_output=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            raise InputError(
                f"{package} could not be packed by npm ({sentence(error)}); install npm and "
                f"connect this machine, or put {name} of another one into {folder}."
            ) from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise InputError(
            f"{path} is not {package}: its SHA-256 is {found}, expected {expected}; remove it."
        )
    return path
