"""Named tensors on disk: safetensors, and PyTorch files read without running their code."""

from pathlib import Path

import numpy as np

from diffjax.errors import InputError, sentence
from diffjax.pretrained.torch_file import read_torch_file


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of one safetensors file; bfloat16 comes as float32.

    Raises:
      InputError: the file is not whole or not of that format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not an intact safetensors file: {sentence(error)}") from error


READERS = {
    ".safetensors": read_safetensors,
    ".pt": read_torch_file,
    ".pth": read_torch_file,
    ".bin": read_torch_file,
    ".ckpt": read_torch_file,
}


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: all its safetensors, or else its one other file.

    Raises:
      InputError: there is none, or several of which one cannot choose.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    files = sorted(path for path in folder.iterdir() if path.suffix in READERS)
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise InputError(
            f"{folder}: expected *.safetensors or one {'/'.join(READERS)} file; found {found}."
        )
    return files


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
