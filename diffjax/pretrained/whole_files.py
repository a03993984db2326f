"""One file of a whole Stable Diffusion: its parts and their published configurations."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError
from diffjax.pretrained.ldm import Renamed, by_name, same_name, unet_name, vae_name
from diffjax.pretrained.open_clip import by_transformers
from diffjax.pretrained.sd3_file import projected, transformer_config, transformer_tensors
from diffjax.pretrained.tensors import READERS, read_tensors

NOT_WEIGHTS = (
    *("model_ema.", "betas", "alphas_cumprod", "sqrt_", "log_one_minus", "posterior_"),
    *("lvlb_weights", "logvar", "scale_factor", "denoiser.sigmas", "cond_stage_model.logit_scale"),
)
"""Beginnings of names of noise tables, which the scheduler has, and of averages."""


class FilePart(NamedTuple):
    """A part of one file.

    Attributes:
      prefix: of its tensors' names.
      kind: its class.
      config: its published config.json.
      renamed: from the file's names to diffusers'.
    """

    prefix: str
    kind: str
    config: Mapping[str, Any]
    renamed: Renamed


class WholeFile(NamedTuple):
    """A system in one file.

    Attributes:
      name: what errors call it.
      kind: the pipeline that it is.
      parts: those whose weights it holds.
      scheduler: its published scheduler_config.json; None where the file does not say it.
      tokenizers: which must stand beside it.
      beside: part -> class, of parts whose folders stand beside it.
    """

    name: str
    kind: str
    parts: Mapping[str, FilePart]
    scheduler: Mapping[str, Any] | None
    tokenizers: tuple[str, ...] = ("tokenizer",)
    beside: Mapping[str, str] = MappingProxyType({})


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PNDM = {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": True, "steps_offset": 1}
EULER = {
    "_class_name": "EulerDiscreteScheduler",
    **BETAS,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

UNET_1 = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
UNET_2 = UNET_1 | {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
UNET_XL = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
CLIP_L = {
    "architectures": ["CLIPTextModel"],
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
    "eos_token_id": 2,
}
CLIP_H = CLIP_L | {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
CLIP_G = CLIP_H | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}


def _unet(config: Mapping[str, Any]) -> FilePart:
    prefix = "model.diffusion_model."
    return FilePart(prefix, "UNet2DConditionModel", config, by_name(unet_name))


def _vae(config: Mapping[str, Any]) -> FilePart:
    return FilePart("first_stage_model.", "AutoencoderKL", config, by_name(vae_name))


def _clip(prefix: str, renamed: Renamed, config: Mapping[str, Any]) -> FilePart:
    return FilePart(prefix, config["architectures"][0], config, renamed)


XL_TEXTS = {
    "text_encoder": _clip("conditioner.embedders.0.transformer.", by_name(same_name), CLIP_L),
    "text_encoder_2": _clip("conditioner.embedders.1.model.", by_transformers, CLIP_G),
}
STABLE_DIFFUSION_1 = WholeFile(
    "Stable Diffusion 1",
    "StableDiffusionPipeline",
    {
        "unet": _unet(UNET_1),
        "vae": _vae(VAE),
        "text_encoder": _clip("cond_stage_model.transformer.", by_name(same_name), CLIP_L),
    },
    PNDM,
)
STABLE_DIFFUSION_2 = WholeFile(
    "Stable Diffusion 2",
    "StableDiffusionPipeline",
    {
        "unet": _unet(UNET_2),
        "vae": _vae(VAE),
        "text_encoder": _clip("cond_stage_model.model.", by_transformers, CLIP_H),
    },
    None,
)
STABLE_DIFFUSION_XL = WholeFile(
    "Stable Diffusion XL",
    "StableDiffusionXLPipeline",
    {
        "unet": _unet(UNET_XL),
        "vae": _vae(VAE | {"sample_size": 1024, "scaling_factor": 0.13025}),
        **XL_TEXTS,
    },
    EULER,
    ("tokenizer", "tokenizer_2"),
)
SD3_VAE = VAE | {
    "sample_size": 1024,
    "latent_channels": 16,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
PROJECTED_L = CLIP_L | {"architectures": ["CLIPTextModelWithProjection"]}
T5_XXL = {
    "architectures": ["T5EncoderModel"],
    "d_model": 4096,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
SD3_TEXTS = {
    "text_encoder": _clip("text_encoders.clip_l.transformer.", projected, PROJECTED_L),
    "text_encoder_2": _clip("text_encoders.clip_g.transformer.", projected, CLIP_G),
    "text_encoder_3": _clip("text_encoders.t5xxl.transformer.", by_name(same_name), T5_XXL),
}
SD3_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def stable_diffusion_3(tensors: Mapping[str, np.ndarray], folder: Path) -> WholeFile:
    """A Stable Diffusion 3 or 3.5 by what a file of it holds; T5 may be missing.

    Args:
      tensors: of the file.
      folder: that it is in, with the text encoders that it does not hold.
    """
    config = transformer_config(tensors)
    vae = _vae(SD3_VAE | {"latent_channels": config["in_channels"]})
    kind, renamed = config["_class_name"], transformer_tensors
    transformer = FilePart("model.diffusion_model.", kind, config, renamed)
    held = {n: p for n, p in SD3_TEXTS.items() if any(t.startswith(p.prefix) for t in tensors)}
    beside = {n: p.kind for n, p in SD3_TEXTS.items() if n not in held and (folder / n).is_dir()}
    texts = sorted({*held, *beside})
    tokenizers = tuple(name.replace("text_encoder", "tokenizer") for name in texts)
    parts = {"transformer": transformer, "vae": vae, **held}
    name, kind = "Stable Diffusion 3", "StableDiffusion3Pipeline"
    return WholeFile(name, kind, parts, SD3_SCHEDULER, tokenizers, beside)


def is_whole_file(path: Path) -> bool:
    """Whether a path is one file of a whole latent diffusion system."""
    alone = path.is_file() and not (path.parent / "config.json").is_file()
    if path.suffix not in READERS or not alone:
        return False
    prefix = STABLE_DIFFUSION_1.parts["unet"].prefix
    return any(name.startswith(prefix) for name in read_tensors([path]))


def whole_file(path: Path) -> WholeFile:
    """Which system a file is, by the names of its text encoder or of its transformer.

    Raises:
      InputError: the file has a tensor of no part.
    """
    tensors = read_tensors([path])
    whole = system_of(tensors, path.resolve().parent)
    known = (*(part.prefix for part in whole.parts.values()), *NOT_WEIGHTS)
    for name in tensors:
        if not name.startswith(known) and not name.endswith(".logit_scale"):
            raise InputError(f"the tensor {name!r} belongs to no part of a {whole.name}.")
    return whole


def system_of(tensors: Mapping[str, np.ndarray], folder: Path) -> WholeFile:
    """The system whose tensors a file holds; arguments as of `stable_diffusion_3`."""
    if any(name.startswith("model.diffusion_model.joint_blocks.") for name in tensors):
        return stable_diffusion_3(tensors, folder)
    for whole in (STABLE_DIFFUSION_XL, STABLE_DIFFUSION_2):
        if any(name.startswith(whole.parts["text_encoder"].prefix) for name in tensors):
            return whole
    return STABLE_DIFFUSION_1


def part_of(
    tensors: Mapping[str, np.ndarray],
    part: FilePart,
    names: Iterable[str],
    config: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """The tensors of one part by diffusers' names.

    Args:
      tensors: of the whole file.
      part: which.
      names: diffusers' names of the part.
      config: its config.json.

    Returns:
      Those that are there; one that has no name in `names` keeps its own, to be refused.
    """
    start = part.prefix
    own = {n.removeprefix(start): w for n, w in tensors.items() if n.startswith(start)}
    return part.renamed(own, names, config)
