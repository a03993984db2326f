"""Tiny published systems of `tests/golden/pipelines`, laid out as their folders are."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from nets import weight
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parent / "golden"
CLIP_SETTINGS = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": 16,
    "pad_token": "<|endoftext|>",
}
T5_SETTINGS = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "pad_token": "<pad>"}


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    """The folder of a tiny Stable Diffusion 1."""
    return write_system(tmp_path_factory.mktemp("systems") / "sd", "sd_ddim")


@pytest.fixture
def spoilt(sd, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(sd, tmp_path / "spoilt")


def described(name):
    """The description of a golden pipeline, and its arrays."""
    spec = json.loads((GOLDEN / "pipelines" / f"{name}.json").read_text())
    with np.load(GOLDEN / "pipelines" / f"{name}_io.npz") as file:
        return spec, dict(file)


def write_system(folder, name):
    """The folder of a golden pipeline, with weights that are a function of their names."""
    spec, _ = described(name)
    index = {"_class_name": spec["reference"].split()[-1]}
    folder.mkdir(parents=True, exist_ok=True)
    for part, component in spec["components"].items():
        if part.startswith("tokenizer"):
            index[part] = ["transformers", write_tokenizer(folder / part, component)]
        elif part.startswith("controlnet_"):
            write_network(folder / part, component)
            index["controlnet"] = ["diffusers", "MultiControlNetModel"]
        elif part == "ip_adapter":
            tensors = {name: weight(name, shape) for name, shape in component.items()}
            save_file(tensors, folder / "ip_adapter.safetensors")
        else:
            index[part] = ["a library", write_network(folder / part, component)]
    own = {"scheduler": spec["scheduler"]} if "scheduler" in spec else {}
    for part, settings in (own | spec.get("schedulers", {})).items():
        (folder / part).mkdir()
        write_json(folder / part / "scheduler_config.json", settings)
        index[part] = ["diffusers", settings["_class_name"]]
    write_json(folder / "model_index.json", index)
    return folder


def changed(folder, part, **entries):
    """Other settings of a part."""
    path = folder / part / "config.json"
    write_json(path, json.loads(path.read_text()) | entries)


def write_clip(folder):
    """The folder of a tiny CLIP, its tokenizer beside it as in a pipeline."""
    folder.mkdir(exist_ok=True)
    write_network(folder / "text_encoder", "sd_text_encoder")
    write_tokenizer(folder / "tokenizer", {})
    return folder / "text_encoder"


def write_tokenizer(folder, component):
    """A tokenizer's files; its class."""
    tokenizers, clip = GOLDEN / "tokenizers", "spiece" not in component
    folder.mkdir()
    if clip:
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(tokenizers / "clip_small" / file, folder)
    else:
        shutil.copy(tokenizers / "spiece_small.model", folder / "spiece.model")
    write_json(folder / "tokenizer_config.json", CLIP_SETTINGS if clip else T5_SETTINGS)
    return "CLIPTokenizer" if clip else "T5Tokenizer"


def write_network(folder, component):
    """A network's files; its class."""
    spec = json.loads((GOLDEN / "pipelines" / "components" / f"{component}.json").read_text())
    config, kind = spec["config"], spec["config"].get("_class_name")
    if kind is None:
        kind = spec["reference"].split()[1]
        config = config | {"architectures": [kind]}
    folder.mkdir()
    write_json(folder / "config.json", config)
    tensors = {name: weight(name, shape) for name, shape in spec["parameters"].items()}
    save_file(tensors, folder / "model.safetensors")
    return kind


def write_json(path, value):
    """A file of JSON."""
    path.write_text(json.dumps(value))
