"""Sana's transformer and its autoencoder, as diffusers has them."""

from functools import partial
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.autoencoder import PointAutoencoder
from diffjax.models.dc_autoencoder import (
    DCBlock,
    DCDecoder,
    DCEncoder,
    VitBlock,
)
from diffjax.models.sana import Sana
from diffjax.pretrained.architecture import (
    Architecture,
    denoising,
    encoding,
    image_inputs,
    known_arguments,
    point,
    supported,
)
from diffjax.pretrained.own_names import own_names
from diffjax.pretrained.scheduler import noise_of, straight_line

DEFAULTS = {
    "in_channels": 32,
    "out_channels": 32,
    "num_attention_heads": 70,
    "attention_head_dim": 32,
    "num_layers": 20,
    "num_cross_attention_heads": 20,
    "cross_attention_head_dim": 112,
    "cross_attention_dim": 2240,
    "caption_channels": 2304,
    "mlp_ratio": 2.5,
    "dropout": 0.0,
    "attention_bias": False,
    "sample_size": 32,
    "patch_size": 1,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "interpolation_scale": None,
    "guidance_embeds": False,
    "guidance_embeds_scale": 0.1,
    "qk_norm": None,
    "timestep_scale": 1.0,
}
BLOCKS = ("ResBlock", "EfficientViTBlock")
DC = {
    "in_channels": 3,
    "latent_channels": 32,
    "attention_head_dim": 32,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "decoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
    "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
    "encoder_qkv_multiscales": ((), (), (), (5,), (5,), (5,)),
    "decoder_qkv_multiscales": ((), (), (), (5,), (5,), (5,)),
    "upsample_block_type": "pixel_shuffle",
    "downsample_block_type": "pixel_unshuffle",
    "decoder_norm_types": None,
    "decoder_act_fns": None,
    "encoder_out_shortcut": True,
    "decoder_in_shortcut": True,
    "decoder_conv_act_fn": "relu",
    "scaling_factor": 1.0,
}
ACTIVATIONS = {"silu": nn.silu, "swish": nn.silu, "relu": nn.relu}


def sana_transformer(config: dict[str, Any]) -> Architecture:
    """diffusers' SanaTransformer2DModel, by its config.json.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    where = "SanaTransformer2DModel"
    c = known_arguments(config, DEFAULTS, where)
    width = c["num_attention_heads"] * c["attention_head_dim"]
    cross = c["num_cross_attention_heads"] * c["cross_attention_head_dim"]
    supported(c, where, dropout=(0.0,), norm_elementwise_affine=(False,), norm_eps=(1e-6,))
    supported(c, where, qk_norm=(None, "rms_norm_across_heads"), cross_attention_dim=(width,))
    supported(c, where, timestep_scale=(1.0,))
    supported(
        {"the width of cross-attention": cross}, where, **{"the width of cross-attention": (width,)}
    )
    scale = c["interpolation_scale"]
    module = Sana(
        heads=c["num_attention_heads"],
        cross_heads=c["num_cross_attention_heads"],
        width=width,
        depth=c["num_layers"],
        channels=c["out_channels"] or c["in_channels"],
        ratio=float(c["mlp_ratio"]),
        patch=c["patch_size"],
        side=c["sample_size"] // c["patch_size"],
        scale=None if scale is None else float(scale),
        bias=c["attention_bias"],
        normed=c["qk_norm"] is not None,
        guided=c["guidance_embeds"],
    )
    cond = {"tokens": ((1, c["caption_channels"]), np.float32)}
    cond |= {"guidance": ((), np.float32)} if module.guided else {}
    inputs = image_inputs(c["patch_size"], c["in_channels"], cond)
    finish = denoising(module, *noise_of(config, straight_line))
    return Architecture(module, inputs, own_names(module, inputs), finish)


def autoencoder_dc(config: dict[str, Any]) -> Architecture:
    """diffusers' AutoencoderDC, by its config.json. Its latents are a point: logvar is -inf.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    where = "AutoencoderDC"
    c = known_arguments(config, DC, where)
    shuffles = ("pixel_shuffle", "interpolate")
    supported(c, where, upsample_block_type=shuffles)
    supported(c, where, downsample_block_type=("pixel_unshuffle", "stride_conv", "conv", "Conv"))
    supported(c, where, decoder_conv_act_fn=tuple(ACTIVATIONS))
    n = len(c["encoder_block_out_channels"])
    for norm in one_each(c["decoder_norm_types"] or "rms_norm", n, "decoder_norm_types"):
        supported({"decoder_norm_types": norm}, where, decoder_norm_types=("rms_norm",))
    module = PointAutoencoder(
        DCEncoder(
            c["latent_channels"],
            tuple(c["encoder_block_out_channels"]),
            blocks_of(c, "encoder", "silu"),
            c["downsample_block_type"] == "pixel_unshuffle",
            c["encoder_out_shortcut"],
        ),
        DCDecoder(
            c["in_channels"],
            tuple(c["decoder_block_out_channels"]),
            blocks_of(c, "decoder", c["decoder_act_fns"] or "silu"),
            c["upsample_block_type"] == "pixel_shuffle",
            c["decoder_in_shortcut"],
            ACTIVATIONS[c["decoder_conv_act_fn"]],
        ),
    )
    size = 2**n
    inputs = (jax.ShapeDtypeStruct((1, size, size, c["in_channels"]), np.float32),)
    finish = encoding(module, point, scaling_factor=1.0)
    return Architecture(module, inputs, own_names(module, inputs), finish)


def one_each(value: Any, n: int, name: str) -> list:
    """One value for all levels, or a list of one each.

    Raises:
      InputError: a list of another length.
    """
    if isinstance(value, str):
        return [value] * n
    if len(value) != n:
        raise InputError(f"config.json: {name} = {value!r}: expected {n} values.")
    return list(value)


def blocks_of(c: dict[str, Any], part: str, activations: Any) -> tuple:
    """The makers of the blocks of each level of one net."""
    n = len(c[f"{part}_block_out_channels"])
    kinds = one_each(c[f"{part}_block_types"], n, f"{part}_block_types")
    counts = one_each(c[f"{part}_layers_per_block"], n, f"{part}_layers_per_block")
    kernels = one_each(c[f"{part}_qkv_multiscales"], n, f"{part}_qkv_multiscales")
    levels = []
    for kind, count, kernel, name in zip(
        kinds, counts, kernels, one_each(activations, n, f"{part}_act_fns"), strict=True
    ):
        supported({"block": kind}, "AutoencoderDC", block=BLOCKS)
        supported({"act_fn": name}, "AutoencoderDC", act_fn=tuple(ACTIVATIONS))
        make = partial(DCBlock, ACTIVATIONS[name])
        if kind == "EfficientViTBlock":
            make = partial(VitBlock, c["attention_head_dim"], tuple(kernel))
        levels.append((make,) * count)
    return tuple(levels)
