"""Latents of a complete cache as a source, and draws of them.

A cache is a folder of array_record shards, a record of mean and log-variance for each example,
with cache.json, which says what it is of, and scale.json, which is written last.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.data.augment import Example
from diffjax.data.source import IN_MEMORY, Arrays, Examples, Source
from diffjax.errors import InputError, sentence
from diffjax.latents import LatentScale

RECORD, SCALE = "cache.json", "scale.json"
LOOKED_AT = 256  # examples that stand for the data in its fingerprint


def data_fingerprint(examples: Examples) -> str:
    """A hash of the number of examples and of the x of up to 256, spread over all."""
    places = np.unique(np.linspace(0, len(examples) - 1, LOOKED_AT).round().astype(int))
    total = hashlib.sha256(str(len(examples)).encode())
    for i in places.tolist():
        x = np.ascontiguousarray(examples[i]["x"])
        total.update(f"{x.shape} {x.dtype}".encode() + x.tobytes())
    return total.hexdigest()[:16]


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file.

    Raises:
      InputError: it is damaged.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({sentence(error)}); remove the folder.") from error


def shard_path(folder: Path, shard: int, shards: int) -> Path:
    """The file of one shard."""
    return folder / f"latents-{shard:05d}-of-{shards:05d}.array_record"


def complete_record(folder: str | Path) -> dict[str, Any]:
    """What cache.json says of a cache that is complete.

    Raises:
      InputError: there is none, or it is not complete.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise InputError(
            f"{folder} holds no latents; write them with `python -m diffjax.latents.cache WORKDIR`."
        )
    record = read_json(folder / RECORD)
    missing = [
        path.name
        for i in range(record["shards"])
        if not (path := shard_path(folder, i, record["shards"])).is_file()
    ]
    if missing or not (folder / SCALE).is_file():
        raise InputError(
            f"the latents of {folder} are not complete ({len(missing)} of {record['shards']} "
            "shards are missing); give the command that wrote them again."
        )
    return record


def read_scale(folder: str | Path) -> LatentScale:
    """The scale of a complete cache, a tuple of numbers for each of the two, one per channel."""
    complete_record(folder)
    scale = read_json(Path(folder) / SCALE)
    return LatentScale(tuple(scale["factor"]), tuple(scale["shift"]))


class _Records:
    """Shards as examples of `x` and `std`."""

    def __init__(self, paths: Sequence[str], shape: tuple[int, ...], scale: LatentScale):
        import grain

        self.records, self.shape = grain.sources.ArrayRecordDataSource(list(paths)), shape
        self.factor, self.shift = (np.asarray(a, np.float32) for a in scale)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        mean, logvar = np.frombuffer(self.records[index], np.float32).reshape(2, *self.shape)
        std = np.exp(logvar / 2) * self.factor
        return {"x": (mean - self.shift) * self.factor, "std": std}


class _Beside:
    """Latents with what else the data say of each example."""

    def __init__(self, latents: Examples, examples: Examples):
        self.latents, self.examples = latents, examples

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> Example:
        return {**self.examples[index], **self.latents[index]}

    @property
    def arrays(self) -> dict[str, Any]:
        """What the examples hold in memory without being read, by name."""
        return {**getattr(self.examples, "arrays", {}), **getattr(self.latents, "arrays", {})}


def cached(
    folder: str | Path, beside: Source | None = None, autoencoder: str | None = None
) -> Source:
    """The latents of a complete cache, scaled for diffusion.

    Args:
      folder: of the cache.
      beside: the data that were encoded, whose labels or captions belong to the latents.
      autoencoder: fingerprint of the autoencoder that is to decode, from `weights.fingerprint`.

    Returns:
      A source of `x`, the mean, and `std`, both float32 and scaled, of which `drawn` makes a
      draw; in memory if they take at most 1 GiB.

    Raises:
      InputError: no complete cache, one of another autoencoder, or one of other data.
    """
    folder, record = Path(folder), complete_record(folder)
    if autoencoder not in (None, record["autoencoder"]):
        raise InputError(
            f"the latents of {folder} are of another autoencoder (fingerprint "
            f"{record['autoencoder']}) than the one given ({autoencoder}); encode the data with "
            "this one by `python -m diffjax.latents.cache WORKDIR --out ANOTHER`."
        )
    if beside is not None and data_fingerprint(beside.examples) != record["data"]:
        raise InputError(
            f"the latents of {folder} are of other data than those given; encode these in another "
            "folder."
        )
    shape = tuple(record["shape"])
    paths = [str(shard_path(folder, i, record["shards"])) for i in range(record["shards"])]
    examples = _Records(paths, shape, read_scale(folder))
    in_memory = 8 * record["count"] * int(np.prod(shape)) <= IN_MEMORY
    if in_memory:
        rows = [examples[i] for i in range(len(examples))]
        examples = Arrays(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})
    if beside is None:
        return Source(examples, shape, 0, in_memory)
    both = in_memory and beside.in_memory
    return Source(_Beside(examples, beside.examples), shape, beside.num_classes, both)


def drawn(example: Example, rng: np.random.Generator) -> Example:
    """A draw of the posterior in place of its mean, x + std eps: an augmentation."""
    eps = rng.standard_normal(example["x"].shape, np.float32)
    rest = {name: a for name, a in example.items() if name != "std"}
    return rest | {"x": example["x"] + example["std"] * eps}
