"""Data sets of tensorflow-datasets as a source, read without TensorFlow."""

import shlex
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.data.image import decode, square
from diffjax.data.source import Examples, Source, cache_in_memory
from diffjax.errors import InputError, sentence


class _Records:
    """Records with encoded images as examples of one shape."""

    def __init__(self, records: Examples, shape: tuple[int, ...], image: str, **conditions: str):
        self.records, self.shape, self.image, self.conditions = records, shape, image, conditions

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record, (height, width, channels) = self.records[index], self.shape
        file = BytesIO(record[self.image])
        whole = height != width  # a set of one size that is not square is not resized
        x = np.array(decode(file, channels)) if whole else square(file, height, channels)
        x = x.reshape(self.shape)
        return {"x": x} | {name: _plain(record[key]) for name, key in self.conditions.items()}


def tfds(
    name: str, split: str = "train", data_dir: str | Path | None = None, size: int | None = None
) -> Source:
    """A prepared set of tensorflow-datasets, read through array_record.

    Args:
      name: such as "fashion_mnist", with `/config` and `:version` if wanted.
      split: such as "train" or "train[:90%]".
      data_dir: where it was prepared; default `TFDS_DATA_DIR` or ~/tensorflow_datasets.
      size: side in pixels to which the central square of each image is resized; None keeps
        images that are of one size already.

    Returns:
      A source of bytes, with the first class label as "label", or else the first text as
      "caption"; in memory if it takes at most 1 GiB.

    Raises:
      InputError: no such set or split, not prepared, without images of bytes, or images of
        different sizes and no `size`.
    """
    from tensorflow_datasets.core.decode import SkipDecoding

    builder = _find(name, data_dir)
    shape, image, conditions, num_classes = _features(name, builder.info.features, size)
    try:
        records = builder.as_data_source(split=split, decoders={image: SkipDecoding()})
    except Exception as error:
        splits = ", ".join(builder.info.splits)
        raise InputError(
            f"{name}: split {split!r} cannot be read ({sentence(error)}); it has {splits}."
        ) from error
    examples = _Records(records, shape, image, **conditions)
    return cache_in_memory(Source(examples, shape, num_classes, in_memory=False))


def _find(name: str, data_dir: str | Path | None):
    """The builder of a set that is prepared, or the command that prepares it in an error."""
    import tensorflow_datasets

    where = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir, file_format="array_record")
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise InputError(
            f"{name!r} is not a set of tensorflow-datasets, nor prepared in its folder; see "
            "https://www.tensorflow.org/datasets/catalog for the names."
        ) from error
    if not builder.is_prepared():
        raise InputError(
            f"{name} is not prepared in {builder.data_path.parent.parent}; to do it, type: "
            f"python -m diffjax.data.prepare {name}{where}"
        )
    return builder


def _features(name: str, features, size: int | None):
    """Shape of an image, its key, the key of what conditions it by name, number of classes."""
    from tensorflow_datasets.core.features import ClassLabel, Image, Text

    def keys(kind):
        return [key for key, feature in features.items() if isinstance(feature, kind)]

    images, labels, texts = keys(Image), keys(ClassLabel), keys(Text)
    if not images or features[images[0]].np_dtype != np.uint8:
        raise InputError(f"{name}: expected a set with images of bytes; it has {list(features)}.")
    height, width, channels = features[images[0]].shape
    if size is None and None in (height, width):
        raise InputError(f"{name}: its images come in different sizes; pass size=, such as 64.")
    shape = (size or height, size or width, 1 if channels == 1 else 3)
    if labels:
        return shape, images[0], {"label": labels[0]}, features[labels[0]].num_classes
    return shape, images[0], {"caption": texts[0]} if texts else {}, 0


def _plain(value: Any) -> np.int32 | str:
    """A label as int32, a caption as a string."""
    return value.decode() if isinstance(value, bytes) else np.int32(value)
