"""PyTorch's files from before 1.6, read without PyTorch and without running what is in them.

Five pickles in a row (magic number, protocol, system, object, storage keys), then each storage as
its length and its bytes.
"""

import pickle
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from diffjax.errors import InputError, sentence
from diffjax.pretrained.torch_file import ALLOWED, DTYPES, _rebuild_parameter, _state_dict, _strided

MAGIC = 0x1950A86A20F9469CFC6C


class _View:
    """A tensor of a storage whose bytes come later in the file."""

    def __init__(self, key, offset, size, stride, *_):
        self.key, self.offset, self.size, self.stride = key, offset, tuple(size), tuple(stride)


class _Unpickler(pickle.Unpickler):
    """Finds the names of `torch_file.ALLOWED` and no other."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        if name == "_rebuild_tensor_v2":
            return _View
        return _rebuild_parameter if name == "_rebuild_parameter" else ALLOWED[module, name]

    def persistent_load(self, pid: tuple) -> str:
        _, storage, key, *_ = pid
        self.storages[key] = np.dtype(DTYPES[storage.name])
        return key


def _storage(file: BinaryIO, dtype: np.dtype) -> np.ndarray:
    (count,) = struct.unpack("<q", file.read(8))
    return np.frombuffer(file.read(count * dtype.itemsize), dtype, count)


def read_legacy_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict saved by `torch.save` before PyTorch 1.6, by name.

    Args:
      path: of the file.

    Returns:
      Name to array.

    Raises:
      InputError: the file is of another format, damaged, or holds more than tensors.
    """
    try:
        with open(path, "rb") as file:
            if _Unpickler(file).load() != MAGIC:
                raise pickle.UnpicklingError("it does not begin with PyTorch's number")
            _Unpickler(file).load()
            _Unpickler(file).load()
            unpickler = _Unpickler(file)
            content = unpickler.load()
            keys = _Unpickler(file).load()
            raw = {key: _storage(file, unpickler.storages[key]) for key in keys}
            tensors = {
                name: _strided(raw[view.key], view.offset, view.size, view.stride)
                for name, view in content.items()
            }
    except Exception as error:  # a damaged pickle fails in any way
        raise InputError(
            f"{path} is not an intact file of torch.save before 1.6: {sentence(error)}"
        ) from error
    return _state_dict(tensors, path)
