"""Stable Cascade's U-Net, as diffusers' StableCascadeUNet has it."""

from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.models.cascade import Cascade, CascadeLevel
from diffjax.parameterization import predict_eps
from diffjax.pretrained.architecture import (
    Architecture,
    denoising,
    image_inputs,
    known_arguments,
    supported,
)
from diffjax.pretrained.own_names import own_names
from diffjax.pretrained.scheduler import Noise, noise_of
from diffjax.schedules import vp_cosine
from diffjax.types import Array, Coefficients, Schedule

WHERE = "StableCascadeUNet"
USUAL_BLOCKS = ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock")
DEFAULTS = {
    "in_channels": 16,
    "out_channels": 16,
    "timestep_ratio_embedding_dim": 64,
    "patch_size": 1,
    "conditioning_dim": 2048,
    "block_out_channels": (2048, 2048),
    "num_attention_heads": (32, 32),
    "down_num_layers_per_block": (8, 24),
    "up_num_layers_per_block": (24, 8),
    "down_blocks_repeat_mappers": (1, 1),
    "up_blocks_repeat_mappers": (1, 1),
    "block_types_per_layer": (USUAL_BLOCKS, USUAL_BLOCKS),
    "clip_text_in_channels": None,
    "clip_text_pooled_in_channels": 1280,
    "clip_image_in_channels": None,
    "clip_seq": 4,
    "effnet_in_channels": None,
    "pixel_mapper_in_channels": None,
    "kernel_size": 3,
    "dropout": None,
    "self_attn": None,
    "timestep_conditioning_type": ("sca", "crp"),
    "switch_level": None,
}


def eps_at_ratio(schedule: Schedule, t: Array) -> Coefficients:
    """The noise, by a network that is given t in [0, 1] as it is."""
    return predict_eps(schedule, t)._replace(c_noise=t)


def wuerstchen() -> Noise:
    """What Stable Cascade was trained with: the cosine schedule with s = 0.008."""
    return vp_cosine(), eps_at_ratio


def stable_cascade_unet(config: dict[str, Any]) -> Architecture:
    """diffusers' StableCascadeUNet, by its config.json.

    Its times are the schedule's own, in [0, 1].

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, DEFAULTS, WHERE)
    if (c["clip_text_in_channels"] is None) != (c["clip_image_in_channels"] is None):
        raise InputError(
            f"config.json: {WHERE} reads a text's states and a picture's embedding or neither; "
            "expected both clip_text_in_channels and clip_image_in_channels, or neither."
        )
    even = c["timestep_ratio_embedding_dim"] // 2 * 2
    supported(c, WHERE, timestep_ratio_embedding_dim=(even,))
    switch = c["switch_level"]
    text = c["clip_text_in_channels"] is not None
    module = Cascade(
        levels=levels_of(c),
        channels=c["out_channels"],
        times=c["timestep_ratio_embedding_dim"],
        further=tuple(c["timestep_conditioning_type"]),
        width=c["conditioning_dim"],
        tokens=c["clip_seq"],
        text=text,
        image=c["effnet_in_channels"] is not None,
        pixels=c["pixel_mapper_in_channels"] is not None,
        patch=c["patch_size"],
        kernel=c["kernel_size"],
        resized=None if switch is None else tuple(bool(s) for s in switch),
    )
    cond = {"vector": ((c["clip_text_pooled_in_channels"],), np.float32)}
    if text:
        cond["tokens"] = ((1, c["clip_text_in_channels"]), np.float32)
        cond["image_embedding"] = ((c["clip_image_in_channels"],), np.float32)
    if module.image:
        cond["image"] = ((1, 1, c["effnet_in_channels"]), np.float32)
    if module.pixels:
        cond["pixels"] = ((1, 1, c["pixel_mapper_in_channels"]), np.float32)
    size = c["patch_size"] * 2 ** len(module.levels)
    inputs = image_inputs(size, c["in_channels"], cond)
    finish = denoising(module, *noise_of(config, wuerstchen))
    return Architecture(module, inputs, own_names(module, inputs), finish)


def each_of(value: Any, n: int) -> list:
    """A list as it is, and one value as one for each of n levels."""
    return list(value) if isinstance(value, list | tuple) else [value] * n


def levels_of(c: dict[str, Any]) -> tuple[CascadeLevel, ...]:
    """The levels; the reference lists the way up from the coarsest.

    Raises:
      InputError: lists of different lengths, or a kind of block that is not built here.
    """
    n = len(c["block_out_channels"])
    each = {
        "block_out_channels": c["block_out_channels"],
        "num_attention_heads": c["num_attention_heads"],
        "down_num_layers_per_block": c["down_num_layers_per_block"],
        "up_num_layers_per_block": c["up_num_layers_per_block"][::-1],
        "down_blocks_repeat_mappers": c["down_blocks_repeat_mappers"],
        "up_blocks_repeat_mappers": c["up_blocks_repeat_mappers"][::-1],
        "block_types_per_layer": [tuple(kinds) for kinds in c["block_types_per_layer"]],
        "self_attn": each_of(True if c["self_attn"] is None else c["self_attn"], n),
        "dropout": each_of(0.1 if c["dropout"] is None else c["dropout"], n),
    }
    for name, values in each.items():
        if len(values) != n:
            raise InputError(
                f"config.json: {WHERE} with {n} block_out_channels needs {n} of {name}; "
                f"got {len(values)}."
            )
    for kinds in each["block_types_per_layer"]:
        for kind in kinds:
            supported({"block_types_per_layer": kind}, WHERE, block_types_per_layer=USUAL_BLOCKS)
    return tuple(CascadeLevel(*values) for values in zip(*each.values(), strict=True))
