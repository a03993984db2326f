"""Text encoders under the names of OpenCLIP, as files of Stable Diffusion 2 and XL have them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from diffjax.pretrained.ldm import Tensors

ENDS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
UNUSED = ("logit_scale", "attn_mask")
"""Of the pairing with pictures, and a constant."""


def by_transformers(
    tensors: Tensors, names: Iterable[str], config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """OpenCLIP's tensors of a text encoder as those of transformers' CLIPTextModel.

    Queries, keys and values are one matrix there, and the projection is transposed. A model that
    has fewer layers than the file, or no projection, leaves the rest of the file out.

    Args:
      tensors: by OpenCLIP's names.
      names: transformers' names.
      config: its config.json.

    Returns:
      By transformers' names; a tensor that has none keeps its own, to be refused.
    """
    found, wanted = {}, set(names)
    for name, tensor in tensors.items():
        if name in UNUSED or _layer(name) >= config["num_hidden_layers"]:
            continue
        if name == "text_projection":
            if "text_projection.weight" in wanted:
                found["text_projection.weight"] = np.asarray(tensor).T
        elif name in ENDS:
            found[f"text_model.{ENDS[name]}"] = tensor
        else:
            found |= _of_layer(name, tensor)
    return found


def _layer(name: str) -> int:
    met = re.match(r"transformer\.resblocks\.(\d+)\.", name)
    return int(met[1]) if met else -1


def _of_layer(name: str, tensor: np.ndarray) -> dict[str, np.ndarray]:
    met = re.match(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$", name)
    if met is None:
        return {name: tensor}
    layer, kind = f"text_model.encoder.layers.{met[1]}", met[3]
    if met[2] == "attn.in_proj":
        parts = zip("qkv", np.split(np.asarray(tensor), 3), strict=True)
        return {f"{layer}.self_attn.{which}_proj.{kind}": part for which, part in parts}
    if met[2] in LAYERS:
        return {f"{layer}.{LAYERS[met[2]]}.{kind}": tensor}
    return {name: tensor}
