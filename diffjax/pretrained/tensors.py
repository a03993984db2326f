"""Named tensors on disk: safetensors, and PyTorch files read without running their code."""

import json
import math
import re
from pathlib import Path

import ml_dtypes
import numpy as np

from diffjax.errors import InputError, sentence
from diffjax.pretrained.torch_file import read_torch_file

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of one safetensors file, mapped from it and not copied.

    The format: 8 bytes of the header's length, the header as JSON (name to type, shape and byte
    range), the bytes.

    Raises:
      InputError: the file is not whole or not of that format, or of a type that NumPy has not.
    """
    try:
        header, data = _header(Path(path))
        return {name: _tensor(data, entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise InputError(f"{path} is not an intact safetensors file: {sentence(error)}") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The free-form metadata of a safetensors file, {} where it has none."""
    with Path(path).open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size)).get("__metadata__") or {}


def _header(path: Path) -> tuple[dict, np.ndarray]:
    """The header without its metadata, and the bytes after it."""
    data = np.memmap(path, np.uint8, "r")
    size = int.from_bytes(bytes(data[:8]), "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError("it ends within its header")
    header = json.loads(bytes(data[8 : 8 + size]))
    header.pop("__metadata__", None)
    return header, data[8 + size :]


def _tensor(data: np.ndarray, entry: dict) -> np.ndarray:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"expected a type of {', '.join(DTYPES)}; got {entry['dtype']!r}")
    dtype, (start, stop) = np.dtype(DTYPES[entry["dtype"]]), entry["data_offsets"]
    size = math.prod(entry["shape"]) * dtype.itemsize
    if not 0 <= start <= stop <= len(data) or stop - start != size:
        raise ValueError("a tensor reaches beyond the file, or is not of its shape")
    return np.frombuffer(data[start:stop], dtype).reshape(entry["shape"])


READERS = {
    ".safetensors": read_safetensors,
    ".pt": read_torch_file,
    ".pth": read_torch_file,
    ".bin": read_torch_file,
    ".ckpt": read_torch_file,
}
VARIANT = re.compile(r"\.([a-z0-9_]+)(?:-\d+-of-\d+)?$|-\d+-of-\d+\.([a-z0-9_]+)$")
"""Of a name without its suffix: model.fp16, model.fp16-00001-of-00002, or
model-00001-of-00002.fp16."""


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: all its safetensors, or else its one other file.

    Of variants beside each other (model.safetensors, model.fp16.safetensors) the one without a
    variant's name is taken. Names that begin with a dot are not files of weights.

    Raises:
      InputError: there is none, or several of which one cannot choose.
    """
    found = [p for p in sorted(folder.iterdir()) if p.suffix in READERS and p.name[0] != "."]
    safe = [path for path in found if path.suffix == ".safetensors"]
    files = one_variant(folder, safe or found)
    if not files or (not safe and len(files) > 1):
        names = ", ".join(path.name for path in files) or "none"
        raise InputError(
            f"{folder}: expected *.safetensors or one {'/'.join(READERS)} file; found {names}."
        )
    return files


def one_variant(folder: Path, files: list[Path]) -> list[Path]:
    """The files of the variant without a name, or of the only one there is.

    Raises:
      InputError: there are several, all of them with names.
    """
    variants: dict[str, list[Path]] = {}
    for path in files:
        match = VARIANT.search(path.stem)
        variants.setdefault((match and (match[1] or match[2])) or "", []).append(path)
    if "" in variants or len(variants) < 2:
        return variants.get("") or files
    raise InputError(
        f"{folder} has the variants {', '.join(variants)}; give the path of one file, or leave "
        "one variant in the folder."
    )


def read_tensors(files: list[Path]) -> dict[str, np.ndarray]:
    """The tensors of one file, or of all the shards of a large model.

    Raises:
      InputError: a file of an unknown kind, or damaged; two shards with one name.
    """
    tensors: dict[str, np.ndarray] = {}
    for path in files:
        if path.suffix not in READERS:
            raise InputError(f"{path}: expected one of {', '.join(READERS)}; got {path.suffix!r}.")
        part = READERS[path.suffix](path)
        twice = tensors.keys() & part.keys()
        if twice:
            raise InputError(f"{path} repeats the tensor {sorted(twice)[0]!r} of another file.")
        tensors |= part
    return tensors
