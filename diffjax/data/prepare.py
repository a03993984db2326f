"""Prepare a data set for training: `python -m diffjax.data.prepare NAME`.

Writes a set of tensorflow-datasets as array_record files, which `diffjax.data.tfds` reads without
TensorFlow. Builds Fashion-MNIST, MNIST and KMNIST without TensorFlow too, and Fashion-MNIST
without a network where Debian's package dataset-fashion-mnist is installed. `emoji` is a set of
our own, see `diffjax.data.emoji`.
"""

import gzip
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.data.emoji import emoji, prepare_emoji
from diffjax.errors import InputError, sentence

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
HEADER = 10  # bytes of a gzip header without a file name
FILE_NAME = 0b1000  # the flag of a gzip header that a file name follows it
WRITTEN = {"train": 1504176606, "t10k": 1504176627}  # seconds since 1970, of the original files
KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")


def original_gzip(repacked: bytes, name: str, written: int) -> bytes:
    """Put back the file name and time that `gzip -n` left out: the same bytes compressed.

    Args:
      repacked: a gzip file whose header has no file name (RFC 1952, section 2.3).
      name: of the file that was compressed, in Latin-1.
      written: its modification time, in seconds since 1970.

    Returns:
      The gzip file with both in its header.

    Raises:
      InputError: not a gzip file, or one whose header has more than the ten fixed bytes.
    """
    if repacked[:3] != b"\x1f\x8b\x08" or repacked[3] != 0:
        raise InputError(f"{name}.gz: expected a gzip file without a file name in its header.")
    time = written.to_bytes(4, "little")
    header = repacked[:3] + bytes([FILE_NAME]) + time + repacked[8:HEADER]
    return header + name.encode("latin-1") + b"\0" + repacked[HEADER:]


def restore(source: Path, target: Path) -> None:
    """Write Debian's four files of Fashion-MNIST as their authors published them.

    Args:
      source: the folder with the files of the package dataset-fashion-mnist.
      target: a folder for the originals, whose SHA-256 tensorflow-datasets checks.
    """
    for part, written in WRITTEN.items():
        for kind in KINDS:
            name = f"{part}-{kind}"
            repacked = (source / f"{name}.gz").read_bytes()
            (target / f"{name}.gz").write_bytes(original_gzip(repacked, name, written))


def idx(path: str | Path) -> np.ndarray:
    """Read a gzipped IDX file of bytes, the format of MNIST.

    Args:
      path: two zeros, the type 8, the number of axes, their lengths as big-endian int32, data.

    Returns:
      The array, uint8.

    Raises:
      InputError: of another type, or shorter or longer than its header says.
    """
    raw = gzip.decompress(Path(path).read_bytes())
    start = 4 * (1 + raw[3])
    shape = np.frombuffer(raw[4:start], ">i4")
    if raw[:3] != b"\0\0\x08" or len(raw) != start + np.prod(shape):
        raise InputError(f"{path}: expected an IDX file of bytes, as long as its header says.")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _without_tensorflow(builder: type) -> type:
    """A builder of the MNIST family that gives images to Pillow to encode."""

    class Builder(builder, skip_registration=True):
        name = builder.name
        code_path = builder.code_path
        pkg_dir_path = builder.pkg_dir_path

        def _split_generators(self, dl_manager):
            parts = {"train": "train", "test": "t10k"}
            files = dl_manager.download(
                {s: [f"{self.URL}{part}-{kind}.gz" for kind in KINDS] for s, part in parts.items()}
            )
            return {split: self._generate_examples(*files[split]) for split in parts}

        def _generate_examples(self, images, labels) -> Iterable[tuple[int, dict[str, Any]]]:
            from PIL import Image

            pairs = zip(idx(Path(images)), idx(Path(labels)), strict=True)
            for i, (image, label) in enumerate(pairs):
                yield i, {"image": Image.fromarray(image), "label": int(label)}

    return Builder


def _builder(name: str, data_dir: str | Path | None):
    """The builder of a set, that of the MNIST family without TensorFlow."""
    import tensorflow_datasets
    from tensorflow_datasets.image_classification import mnist

    options = {"data_dir": data_dir, "file_format": "array_record"}
    for family in (mnist.FashionMNIST, mnist.MNIST, mnist.KMNIST):
        if name == family.name:
            return _without_tensorflow(family)(**options)
    try:
        return tensorflow_datasets.builder(name, **options)
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise InputError(
            f"{name!r} is not a set of tensorflow-datasets; see "
            "https://www.tensorflow.org/datasets/catalog for the names."
        ) from error


def _reach(name: str, urls: Iterable[str]) -> None:
    """Ask for one of the files, for tensorflow-datasets tries for minutes where none is reached."""
    for url in urls:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20).close()
        except urllib.error.HTTPError:  # an answer
            return
        except OSError as error:
            raise InputError(
                f"{name} has to be downloaded, and {url} cannot be reached ({sentence(error)}); "
                f"connect this machine, or prepare {name} on one that is and copy its data folder."
                + (" Or: apt-get install dataset-fashion-mnist" * (name == "fashion_mnist"))
            ) from error
        return


def prepare(name: str, data_dir: str | Path | None = None, limit: int | None = None):
    """Build a set of tensorflow-datasets as array_record files, unless it is there already.

    Args:
      name: such as "fashion_mnist".
      data_dir: where to; default `TFDS_DATA_DIR` or ~/tensorflow_datasets.
      limit: examples of each split to stop at, for tests; None takes all.

    Returns:
      The builder, with `info.splits` and `data_path`.

    Raises:
      InputError: no such set, its files cannot be reached, or it needs TensorFlow.
    """
    import tensorflow_datasets

    builder = _builder(name, data_dir)
    if builder.is_prepared():
        return builder
    options = {"try_download_gcs": False, "max_examples_per_split": limit}
    try:
        with tempfile.TemporaryDirectory() as originals:
            if name == "fashion_mnist" and DEBIAN.is_dir():
                restore(DEBIAN, Path(originals))
                options["manual_dir"] = originals
            else:
                _reach(name, builder.url_infos or ())
            config = tensorflow_datasets.download.DownloadConfig(**options)
            builder.download_and_prepare(download_config=config)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{name} cannot be built here ({sentence(error)}); most builders need TensorFlow once, "
            "for this command alone: pip install tensorflow-cpu"
        ) from error
    except Exception as error:
        raise InputError(f"{name} could not be built: {sentence(error)}") from error
    return builder


def main(name: str, data_dir: Path | None = None) -> None:
    """Download a set, build it, and say what to type next.

    Args:
      name: emoji, or a set of tensorflow-datasets, such as fashion_mnist.
      data_dir: where to; default TFDS_DATA_DIR or ~/tensorflow_datasets.
    """
    where = "" if data_dir is None else f"data_dir={str(data_dir)!r}"
    if name == "emoji":
        place, read = prepare_emoji(data_dir).parent, f"diffjax.data.emoji({where})"
        sizes = {split: len(emoji(split, 64, data_dir).examples) for split in ("train", "test")}
    else:
        builder = prepare(name, data_dir)
        place, read = builder.data_path, f'diffjax.data.tfds("{name}"{where and ", " + where})'
        sizes = {n: split.num_examples for n, split in builder.info.splits.items()}
    counts = ", ".join(f"{n} {count:,}" for n, count in sizes.items())
    print(f"{name} is prepared in {place}: {counts}. To read it:\n  {read}")
    for config in sorted(Path("configs").glob(f"{name}*.py")):
        print(f"To train on it:\n  python train.py {config}")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(main), prog="prepare")
    except InputError as error:
        print(f"prepare: error: {error}", file=sys.stderr)
        sys.exit(2)
