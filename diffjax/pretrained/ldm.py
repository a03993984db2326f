"""Checkpoints of the latent diffusion code: one file of a whole Stable Diffusion 1.

Each name is that of diffusers' file of the part, in the order of blocks that the code counts in.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.pretrained.tensors import READERS, read_tensors

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT = "cond_stage_model.transformer."
PARTS = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}
NOT_WEIGHTS = (
    *("model_ema.", "betas", "alphas_cumprod", "sqrt_", "log_one_minus", "posterior_"),
    *("lvlb_weights", "logvar", "scale_factor", "denoiser.sigmas", "cond_stage_model.logit_scale"),
)
"""Beginnings of names of noise tables, which the scheduler has, and of averages."""

OTHER_TEXT = {
    "cond_stage_model.model.": "Stable Diffusion 2",
    "conditioner.embedders.": "Stable Diffusion XL",
    "text_encoders.": "Stable Diffusion 3",
}
"""Whose text encoders have other names again."""

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


def is_ldm(path: Path) -> bool:
    """Whether a path is one file of a whole latent diffusion system."""
    alone = path.is_file() and not (path.parent / "config.json").is_file()
    if path.suffix not in READERS or not alone:
        return False
    return any(name.startswith(UNET) for name in read_tensors([path]))


def unet_name(name: str, config: Mapping[str, Any]) -> str:
    """The latent diffusion code's name of a tensor of UNet2DConditionModel."""
    per_level = config.get("layers_per_block", 2)
    found = re.match(
        r"(down|up)_blocks\.(\d+)\.(resnets|attentions|\w+samplers)\.(\d+)\.(.+)", name
    )
    if found is None:
        return UNET + _ends(name, UNET_ENDS)
    side, level, kind, j, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    many = per_level + (side == "up")
    types = config[f"{side}_block_types"]
    if kind.endswith("samplers"):
        if side == "down":
            rest = rest.removeprefix("conv")
            return f"{UNET}input_blocks.{(level + 1) * (per_level + 1)}.0.op{rest}"
        place = 2 if types[level].startswith("CrossAttn") else 1
        return f"{UNET}output_blocks.{(level + 1) * many - 1}.{place}.{rest}"
    first = level * (per_level + 1) + 1 if side == "down" else level * many
    block = f"{'input' if side == 'down' else 'output'}_blocks.{first + j}"
    if kind == "attentions":
        return f"{UNET}{block}.1.{rest}"
    return f"{UNET}{block}.0.{_inner(rest)}"


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
    return VAE + name.replace("conv_shortcut", "nin_shortcut")


def text_name(name: str, config: Mapping[str, Any]) -> str:
    """The latent diffusion code's name of a tensor of CLIPTextModel."""
    return TEXT + name


NAMES: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
    "unet": unet_name,
    "vae": vae_name,
    "text_encoder": text_name,
}


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


def part_of(
    tensors: Mapping[str, np.ndarray], part: str, names: Iterable[str], config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The tensors of one part by diffusers' names.

    Args:
      tensors: of the whole file.
      part: unet, vae or text_encoder.
      names: diffusers' names of the part.
      config: its config.json.

    Returns:
      Those that are there; one that has no name in `names` keeps its own, to be refused.

    Raises:
      InputError: the file has a tensor of no part, or another text encoder.
    """
    check_parts(tensors)
    of_part = {n: w for n, w in tensors.items() if n.startswith(PARTS[part])}
    theirs = {NAMES[part](name, config): name for name in names}
    return {theirs.get(name, name): _dense(w, theirs.get(name, "")) for name, w in of_part.items()}


def _dense(w: np.ndarray, name: str) -> np.ndarray:
    """A (1, 1) convolution of the autoencoder's attention as the matrix that diffusers has."""
    return w[:, :, 0, 0] if w.ndim == 4 and re.search(r"\.to_(q|k|v|out\.0)\.", name) else w


def check_parts(tensors: Iterable[str]) -> None:
    """Refuse a file with tensors of no part, or with another text encoder. Errors of `part_of`."""
    for name in tensors:
        if name.startswith((*PARTS.values(), *NOT_WEIGHTS)):
            continue
        other = next((what for prefix, what in OTHER_TEXT.items() if name.startswith(prefix)), None)
        if other:
            raise InputError(
                f"the file is a {other} in one file, of which only Stable Diffusion 1 is "
                "supported; give its folder with model_index.json."
            )
        raise InputError(f"the tensor {name!r} belongs to no part of a Stable Diffusion 1.")


# --- Stable Diffusion 1.5 by its published configurations -------------------------------

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "sample_size": 512,
    },
    "text_encoder": {
        "architectures": ["CLIPTextModel"],
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "projection_dim": 768,
        "eos_token_id": 2,
    },
}
