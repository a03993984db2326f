"""PyTorch's checkpoint files without PyTorch, and without running what is in them.

A file of `torch.save` is a zip of one pickle, `data.pkl`, and one file of bytes per storage.
A pickle can name any callable; here only those that build tensors and dicts are known.
"""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from diffjax.errors import InputError, sentence

DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
WRAPPERS = (
    *("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "params_ema"),
    *("shadow", "state_dict", "model", "model_state_dict", "params", "module"),
)
"""Keys under which training scripts put the weights, best first: averages before raw ones."""


class _Storage(NamedTuple):
    """A storage's type, as the pickle names it."""

    name: str


def _strided(values: np.ndarray, offset: int, size: tuple, stride: tuple) -> np.ndarray:
    """A copy of the view, with its bounds checked: the numbers come from the file."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    inside = min((offset, *size, *stride)) >= 0 and (0 in size or last < len(values))
    if not inside or math.prod(size) > len(values):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    strides = [step * values.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(values[offset:], size, strides).copy()


def _rebuild_tensor(storage, offset, size, stride, *_):
    return _strided(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data, *_):
    return data


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _Storage(name) for name in DTYPES},
}


class _TensorUnpickler(pickle.Unpickler):
    """Finds the names in ALLOWED and no other."""

    def __init__(self, file: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(file.read(f"{root}/data.pkl")))
        self.file, self.root, self.storages = file, root, {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _, storage, key, *_ = pid
        if key not in self.storages:
            raw = self.file.read(f"{self.root}/data/{key}")
            self.storages[key] = np.frombuffer(raw, DTYPES[storage.name])
        return self.storages[key]


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict saved by `torch.save`, by name.

    Where the file is a training checkpoint, the first of its entries in WRAPPERS, so that averaged
    weights (EMA) are taken before raw ones. No code of the file runs.

    Args:
      path: of a .pt, .pth, .bin or .ckpt file in PyTorch's zip format (1.6 and later).

    Returns:
      Name to array.

    Raises:
      InputError: the file is of another format, damaged, or holds more than tensors.
    """
    try:
        with zipfile.ZipFile(path) as file:
            (pickled,) = [name for name in file.namelist() if name.endswith("/data.pkl")]
            content = _TensorUnpickler(file, pickled.removesuffix("/data.pkl")).load()
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors ({error}), and was not run; save its state dict alone."
        ) from error
    except Exception as error:  # a damaged zip or pickle fails in any way
        raise InputError(
            f"{path} is not an intact file of torch.save, 1.6 or later: {sentence(error)}"
        ) from error
    return _state_dict(content, path)


def _state_dict(content: Any, path: str | Path) -> dict[str, np.ndarray]:
    """The content itself where it maps names to arrays, or its first entry in WRAPPERS."""
    if isinstance(content, dict):
        for key in WRAPPERS:
            if isinstance(content.get(key), dict):
                return _state_dict(content[key], path)
        if content and all(isinstance(value, np.ndarray) for value in content.values()):
            return dict(content)
    raise InputError(f"{path}: expected a state dict (names to tensors); save that alone.")
