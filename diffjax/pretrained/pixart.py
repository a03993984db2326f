"""PixArt's transformer, as diffusers' PixArtTransformer2DModel has it."""

import numpy as np

from diffjax.models.pixart import PixArt
from diffjax.pretrained.architecture import (
    Architecture,
    denoising,
    image_inputs,
    known_arguments,
    supported,
)
from diffjax.pretrained.own_names import own_names
from diffjax.pretrained.scheduler import noise_of

DEFAULTS = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "cross_attention_dim": 1152,
    "attention_bias": True,
    "sample_size": 128,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "upcast_attention": False,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "interpolation_scale": None,
    "use_additional_conditions": None,
    "caption_channels": None,
    "attention_type": "default",
}


LEGACY = {
    "double_self_attention": False,
    "only_cross_attention": False,
    "use_linear_projection": False,
    "num_vector_embeds": None,
}
"""What Transformer2DModel, under whose name PixArt-alpha was published, can say besides."""


def legacy_pixart(config: dict) -> Architecture:
    """PixArt under the name of diffusers' Transformer2DModel, whose tensors are the same.

    Raises:
      InputError: as `pixart_transformer`.
    """
    c = LEGACY | {name: value for name, value in config.items() if name in LEGACY}
    supported(c, "Transformer2DModel", **{name: (value,) for name, value in LEGACY.items()})
    return pixart_transformer({k: v for k, v in config.items() if k not in LEGACY})


def pixart_transformer(config: dict) -> Architecture:
    """diffusers' PixArtTransformer2DModel, by its config.json.

    Where its output has twice the channels of its input, the second half is the variance.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, DEFAULTS, "PixArtTransformer2DModel")
    width = c["num_attention_heads"] * c["attention_head_dim"]
    supported(
        c,
        "PixArtTransformer2DModel",
        activation_fn=("gelu-approximate",),
        attention_bias=(True,),
        attention_type=("default",),
        cross_attention_dim=(width,),
        dropout=(0.0,),
        norm_elementwise_affine=(False,),
        norm_eps=(1e-6,),
        norm_type=("ada_norm_single",),
    )
    sized = c["use_additional_conditions"]
    module = PixArt(
        heads=c["num_attention_heads"],
        width=width,
        depth=c["num_layers"],
        channels=c["out_channels"] or c["in_channels"],
        patch=c["patch_size"],
        side=c["sample_size"] // c["patch_size"],
        scale=float(c["interpolation_scale"] or max(c["sample_size"] // 64, 1)),
        sized=c["sample_size"] == 128 if sized is None else bool(sized),
        captioned=c["caption_channels"] is not None,
    )
    cond = {"tokens": ((1, c["caption_channels"] or width), np.float32)}
    if module.sized:
        cond |= {"resolution": ((2,), np.float32), "aspect_ratio": ((1,), np.float32)}
    inputs = image_inputs(c["patch_size"], c["in_channels"], cond)
    finish = denoising(module, *noise_of(config))
    return Architecture(module, inputs, own_names(module, inputs), finish)
