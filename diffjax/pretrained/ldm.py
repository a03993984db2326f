"""The names of the latent diffusion code, as one file of a whole Stable Diffusion has them.

Each is that of diffusers' file of the part, in the order of blocks that the code counts in.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Tensors = Mapping[str, np.ndarray]
Renamed = Callable[[Tensors, Iterable[str], Mapping[str, Any]], dict[str, np.ndarray]]
"""(tensors of a part by the file's names, diffusers' names, config.json) -> the same tensors by
diffusers' names; one that has none keeps its own, to be refused."""

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
VAE_ENDS = {
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
}


def unet_name(name: str, config: Mapping[str, Any]) -> str:
    """The latent diffusion code's name of a tensor of UNet2DConditionModel."""
    per_level = config.get("layers_per_block", 2)
    found = re.match(
        r"(down|up)_blocks\.(\d+)\.(resnets|attentions|\w+samplers)\.(\d+)\.(.+)", name
    )
    if found is None:
        return _ends(name, UNET_ENDS)
    side, level, kind, j, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    many = per_level + (side == "up")
    types = config[f"{side}_block_types"]
    if kind.endswith("samplers"):
        if side == "down":
            rest = rest.removeprefix("conv")
            return f"input_blocks.{(level + 1) * (per_level + 1)}.0.op{rest}"
        place = 2 if types[level].startswith("CrossAttn") else 1
        return f"output_blocks.{(level + 1) * many - 1}.{place}.{rest}"
    first = level * (per_level + 1) + 1 if side == "down" else level * many
    block = f"{'input' if side == 'down' else 'output'}_blocks.{first + j}"
    if kind == "attentions":
        return f"{block}.1.{rest}"
    return f"{block}.0.{_inner(rest)}"


def vae_name(name: str, config: Mapping[str, Any]) -> str:
    """The latent diffusion code's name of a tensor of AutoencoderKL."""
    levels = len(config["block_out_channels"])
    name = _ends(name, VAE_ENDS)

    def place(found):
        side, level = found[1], int(found[2])
        return f"{side}.{level if side == 'down' else levels - 1 - level}."

    name = re.sub(r"(down|up)_blocks\.(\d+)\.", place, name)
    name = re.sub(r"\.resnets\.(\d+)\.", r".block.\1.", name)
    name = re.sub(r"\.(down|up)samplers\.0\.", r".\1sample.", name)
    return name.replace("conv_shortcut", "nin_shortcut")


def by_name(name_of: Callable[[str, Mapping[str, Any]], str]) -> Renamed:
    """Tensors that differ in their names alone.

    Args:
      name_of: (diffusers' name, config.json) -> the file's.
    """

    def renamed(tensors, names, config):
        ours = {name_of(name, config): name for name in names}
        return {ours.get(n, n): _dense(w, ours.get(n, "")) for n, w in tensors.items()}

    return renamed


def same_name(name: str, config: Mapping[str, Any]) -> str:
    """The name of a text encoder of transformers, which the code uses itself."""
    return name


def _ends(name: str, table: Mapping[str, str]) -> str:
    for theirs, ours in table.items():
        place = name.find(theirs + ".")
        if place == 0 or (place > 0 and name[place - 1] == "."):
            rest = name[place + len(theirs) :]
            rest = "." + _inner(rest[1:]) if ours.startswith("middle_block") else rest
            return name[:place] + ours + rest
    return name


def _inner(rest: str) -> str:
    """The layer of a residual block; of anything else as it is."""
    layer, _, leaf = rest.rpartition(".")
    return f"{RESNET.get(layer, layer)}.{leaf}"


def _dense(w: np.ndarray, name: str) -> np.ndarray:
    """A (1, 1) convolution of the autoencoder's attention as the matrix that diffusers has."""
    return w[:, :, 0, 0] if w.ndim == 4 and re.search(r"\.to_(q|k|v|out\.0)\.", name) else w
