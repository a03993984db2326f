"""The two sides of a comparison: images from a folder, an npz, tfds:NAME or a workdir."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffjax import data
from diffjax.errors import InputError, sentence
from diffjax.evaluation.features import fingerprint
from diffjax.media import to_uint8

IN_MEMORY = 2**28
"""Bytes of images that are held in memory."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
IMAGES, LABELS = ("samples", "x", "arr_0"), ("labels", "label", "arr_1")
"""Names in an npz: of sample.py, of `data.array`, and of ADM's evaluator."""


class Side(NamedTuple):
    """One side of a comparison.

    Attributes:
      name: what the user called it.
      images: (N, H, W, C) uint8.
      labels: (N,) int, or None.
      fingerprint: of the images.
      moments: ADM's published (mu, sigma) where the file holds no images, else None.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    fingerprint: str
    moments: tuple[np.ndarray, np.ndarray] | None = None


def read(text: str) -> Side:
    """A side by its name on the command line.

    Args:
      text: a folder of images, an .npz, tfds:NAME or tfds:NAME:SPLIT.

    Returns:
      The side.

    Raises:
      InputError: there is no such thing, or it holds no images that can be compared.
    """
    if text.startswith("tfds:"):
        name, _, split = text.removeprefix("tfds:").partition(":")
        return of_source(text, lambda: data.tfds(name, split or "train"))
    path = Path(text)
    return read_npz(path) if path.suffix == ".npz" else read_folder(path)


def is_workdir(text: str) -> bool:
    """Whether it is a folder that train.py made."""
    return (Path(text) / "config.json").is_file() and (Path(text) / "config.py").is_file()


def training_data(workdir: Path) -> Side:
    """The images that a run was trained on."""
    from diffjax.run.workdir import load_experiment

    return of_source(f"the data of {workdir}", load_experiment(workdir).source)


def of_source(
    name: str, make: Callable[[], data.Source], rows: Sequence[int] | np.ndarray | None = None
) -> Side:
    """The images of a data source, or some of them.

    Raises:
      InputError: it cannot be read, or its examples are no images.
    """
    source = data.load(make)
    rows = range(len(source.examples)) if rows is None else rows
    first = source.examples[int(rows[0])]
    if np.ndim(first["x"]) != 3:
        raise InputError(f"{name} holds no images; got arrays {np.shape(first['x'])}.")
    labels = [] if source.num_classes > 0 and "label" in first else None

    def images():
        for i in rows:
            example = source.examples[int(i)]
            if labels is not None:
                labels.append(example["label"])
            image = np.asarray(example["x"])
            if image.dtype != np.uint8:
                _refuse_nan(name, image)
                image = to_uint8(image)
            yield image

    found = gather(images(), len(rows))
    return side(name, found, None if labels is None else np.array(labels))


def gather(images: Iterable[np.ndarray], num: int) -> np.ndarray:
    """Images that come one by one as one array, on disk where they are many.

    Args:
      images: `num` arrays (H, W, C) uint8, of one size.
      num: how many.

    Returns:
      (num, H, W, C) uint8, in memory up to `IN_MEMORY` bytes, else mapped from a file without a
      name, which the system removes with the process.
    """
    found = None
    for i, image in enumerate(images):
        if found is None:
            found = _room((num, *image.shape))
        found[i] = image
    return found


def _room(shape: tuple[int, ...]) -> np.ndarray:
    if np.prod(shape) <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def read_npz(path: Path) -> Side:
    """Images of an npz: sample.py's, `data.array`'s, or ADM's samples and references.

    Raises:
      InputError: the file is missing, damaged, or holds neither images nor statistics.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except Exception as error:
        raise InputError(f"{path} is not an intact npz file: {sentence(error)}") from error
    images = next((arrays[name] for name in IMAGES if name in arrays), None)
    if images is None and {"mu", "sigma"} <= arrays.keys():
        moments = np.asarray(arrays["mu"], float), np.asarray(arrays["sigma"], float)
        mark = fingerprint(*moments)
        return Side(str(path), np.zeros((0, 1, 1, 1), np.uint8), None, mark, moments)
    if images is None or images.ndim != 4:
        found = f"{images.shape}" if images is not None else ", ".join(arrays) or "nothing"
        raise InputError(
            f"{path}: expected images `samples`, `x` or `arr_0` (N, H, W, C) uint8; got {found}."
        )
    if images.dtype != np.uint8:
        _refuse_nan(path, images)
        raise InputError(f"{path}: expected images of uint8; got {images.dtype}; convert them.")
    labels = next((arrays[name] for name in LABELS if name in arrays), None)
    return side(str(path), images, labels)


def read_folder(path: Path) -> Side:
    """Images of a folder, all of one size, with the folders directly below as classes.

    Raises:
      InputError: no such folder, no images, two sizes, grey beside colour, or a damaged image.
    """
    if not path.is_dir():
        raise InputError(
            f"{path} does not exist; expected a folder of images, an .npz, tfds:NAME or a workdir."
        )
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{path} holds no images; expected {', '.join(SUFFIXES)} files.")
    images = gather(_alike(path, files), len(files))
    classes = sorted({f.relative_to(path).parts[0] for f in files if f.parent != path})
    labels = None
    if classes and all(f.parent != path for f in files):
        labels = np.array([classes.index(f.relative_to(path).parts[0]) for f in files])
    return side(str(path), images, labels)


def _alike(folder: Path, files: Sequence[Path]) -> Iterator[np.ndarray]:
    """Images of files one by one, of one size and mode."""
    first = None
    for file in files:
        image = _read(file)
        first = image.shape if first is None else first
        if image.shape != first:
            raise InputError(
                f"{folder} holds images of two kinds: {files[0].name} is {_size(first)} and "
                f"{file.name} {_size(image.shape)}; make them alike."
            )
        yield image


def _read(file: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            grey = image.mode in ("L", "1", "I;16", "LA")
            image = np.asarray(image.convert("L" if grey else "RGB"))
    except Exception as error:
        raise InputError(f"{file} cannot be read: {sentence(error)}") from error
    return image[..., None] if grey else image


def check_pair(samples: Side, reference: Side) -> None:
    """Refuse two sides that cannot be compared.

    Raises:
      InputError: one image on a side, two sizes, or grey against colour.
    """
    for side in (samples, reference):
        if side.moments is None and len(side.images) < 2:
            raise InputError(f"{side.name} holds one image; a comparison needs at least two.")
    if samples.moments is not None:
        raise InputError(f"{samples.name} holds statistics alone; give the samples' images.")
    check_shapes(samples.name, samples.images.shape[1:], reference)


def check_shapes(name: str, a: tuple[int, ...], reference: Side) -> None:
    """Refuse samples of another size than the reference, or grey against colour."""
    b = reference.images.shape[1:]
    if reference.moments is None and tuple(a) != b:
        if len(a) != 3:
            raise InputError(f"images (H, W, C) are evaluated; {name} draws {tuple(a)}.")
        raise InputError(
            f"{name} is {_size(a)} and {reference.name} {_size(b)}; a metric of two "
            "sizes says how they were resized: make them alike."
        )


def _size(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"


def _refuse_nan(name: str | Path, images: np.ndarray) -> None:
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise InputError(f"{name} holds NaN or infinite values; look at how it was made.")


def side(name: str, images: np.ndarray, labels: np.ndarray | None) -> Side:
    """Images and their labels, checked.

    Raises:
      InputError: labels of another number, or channels that are not 1 or 3.
    """
    if labels is not None and (len(labels) != len(images) or np.asarray(labels).ndim != 1):
        raise InputError(f"{name} holds {len(images)} images and labels {np.shape(labels)}.")
    if images.shape[-1] not in (1, 3):
        raise InputError(f"{name}: expected 1 or 3 channels; got images {images.shape}.")
    labels = None if labels is None else np.asarray(labels).astype(int)
    return Side(name, images, labels, fingerprint(images))
