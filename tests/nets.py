"""Reference networks of `tests/golden/nets`: their weights, rebuilt from their names."""

import json
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parent / "golden" / "nets"


def weight(name, shape):
    """The value that the reference's parameter was given: a function of its name."""
    w = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 0 and not name.endswith("gain"):  # EDM2's golden gains are plain draws
        return np.asarray(1 + 0.1 * w, np.float32)
    if len(shape) == 1:
        return (1 + 0.1 * w if name.endswith("weight") else 0.1 * w).astype(np.float32)
    return np.asarray(w / np.sqrt(np.prod(shape[1:])), np.float32)


def reference(name):
    """Configuration, tensors by the reference's names, and arrays of inputs and outputs."""
    described = json.loads((GOLDEN / f"{name}.json").read_text())
    tensors = {key: weight(key, shape) for key, shape in described["parameters"].items()}
    with np.load(GOLDEN / f"{name}_io.npz") as file:
        return described["config"], tensors, dict(file)


def write_folder(folder, config, tensors):
    """A folder as `pretrained.load` wants it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder
