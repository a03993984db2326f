"""One file of a whole Stable Diffusion 3 or 3.5: its names, and its configuration by shapes."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from diffjax.pretrained.ldm import Tensors

PREFIX = "model.diffusion_model."
ENDS = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
LAYERS = {
    "x_block.attn.proj": "attn.to_out.0",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "x_block.adaLN_modulation.1": "norm1.linear",
    "context_block.attn.proj": "attn.to_add_out",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
}
FUSED = {
    "x_block.attn.qkv": "attn.to_{}",
    "x_block.attn2.qkv": "attn2.to_{}",
    "context_block.attn.qkv": "attn.add_{}_proj",
}
"""Queries, keys and values in one matrix, and the names of the three."""


def transformer_tensors(
    tensors: Tensors, names: Iterable[str], config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The tensors of a file's transformer as those of diffusers' SD3Transformer2DModel.

    The file has the shift before the scale where diffusers has them the other way: in the last
    modulation of each stream.

    Args:
      tensors: by the file's names.
      names: diffusers' names.
      config: its config.json.

    Returns:
      By diffusers' names; a tensor that has none keeps its own, to be refused.
    """
    last, found = f"transformer_blocks.{config['num_layers'] - 1}.norm1_context.", {}
    for name, tensor in tensors.items():
        for ours, w in _renamed(name, tensor).items():
            swapped = ours.startswith((last, "norm_out."))
            found[ours] = np.roll(np.asarray(w), len(w) // 2, axis=0) if swapped else w
    return found


def _renamed(name: str, tensor: np.ndarray) -> dict[str, np.ndarray]:
    """One tensor of the file under diffusers' names."""
    if name == "pos_embed":
        return {"pos_embed.pos_embed": tensor}
    stem, _, kind = name.rpartition(".")
    met = re.match(r"joint_blocks\.(\d+)\.(.+)", stem)
    if met is None:
        return {f"{ENDS[stem]}.{kind}" if stem in ENDS else name: tensor}
    block, layer = f"transformer_blocks.{met[1]}", met[2]
    if layer in FUSED:
        parts = zip("qkv", np.split(np.asarray(tensor), 3), strict=True)
        return {f"{block}.{FUSED[layer].format(which)}.{kind}": w for which, w in parts}
    return {f"{block}.{LAYERS[layer]}.{kind}" if layer in LAYERS else name: tensor}


def projected(
    tensors: Tensors, names: Iterable[str], config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """A text encoder under transformers' names, with the identity where it has no projection."""
    found, width = {**tensors}, config["hidden_size"]
    found.pop("logit_scale", None)
    return {"text_projection.weight": np.eye(width, dtype=np.float32), **found}


def transformer_config(tensors: Tensors) -> dict[str, Any]:
    """The config.json of a file's transformer, by the names and the shapes of its tensors.

    Args:
      tensors: of the whole file.
    """
    own = {n.removeprefix(PREFIX): w for n, w in tensors.items() if n.startswith(PREFIX)}
    shape = {name: tuple(w.shape) for name, w in own.items()}
    width, channels, patch, _ = shape.get("x_embedder.proj.weight", (64, 16, 2, 2))
    blocks = [int(met[1]) for name in own if (met := re.match(r"joint_blocks\.(\d+)\.", name))]
    dual = {int(name.split(".")[1]) for name in own if ".x_block.attn2.qkv.weight" in name}
    return {
        "_class_name": "SD3Transformer2DModel",
        "in_channels": channels,
        "patch_size": patch,
        "num_layers": max(blocks, default=0) + 1,
        "num_attention_heads": width // 64,
        "caption_projection_dim": width,
        "joint_attention_dim": shape.get("context_embedder.weight", (0, 4096))[1],
        "pooled_projection_dim": shape.get("y_embedder.mlp.0.weight", (0, 2048))[1],
        "pos_embed_max_size": math.isqrt(shape.get("pos_embed", (1, 192**2))[1]),
        "dual_attention_layers": sorted(dual),
        "qk_norm": "rms_norm" if any(".attn.ln_q." in name for name in own) else None,
    }
