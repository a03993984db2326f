"""diffusers' AutoencoderKL and VQModel."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.asymmetric_autoencoder import STEPS, AsymmetricAutoencoder, KeepingDecoder
from diffjax.models.autoencoder import AutoencoderKL, Decoder, Encoder, Trunk
from diffjax.models.vq import VQModel
from diffjax.pretrained.architecture import (
    Architecture,
    encoding,
    known_arguments,
    point,
    supported,
)
from diffjax.pretrained.diffusers_unet_names import modern_name
from diffjax.pretrained.naming import Entry, Names, conv, conv_1x1, dense, same
from diffjax.pretrained.unet_names import kernel_names, scale_names

SHARED = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "mid_block_add_attention": True,
}
KL_ARGUMENTS = SHARED | {
    "latent_channels": 4,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "force_upcast": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
}
VQ_ARGUMENTS = SHARED | {
    "latent_channels": 3,
    "num_vq_embeddings": 256,
    "vq_embed_dim": None,
    "norm_type": "group",
    "lookup_from_codebook": False,
    "force_upcast": False,
}


ASYMMETRIC_ARGUMENTS = SHARED | {
    "latent_channels": 4,
    "force_upcast": False,
    "down_block_out_channels": (64,),
    "layers_per_down_block": 1,
    "up_block_out_channels": (64,),
    "layers_per_up_block": 1,
}


def autoencoder_kl(config: dict[str, Any]) -> Architecture:
    """diffusers' AutoencoderKL: the autoencoders of Stable Diffusion, SDXL, SD3 and FLUX.

    Args:
      config: its constructor's arguments.

    Raises:
      InputError: an argument that it does not have, or a value that is not built here.
    """
    c = known_arguments(config, KL_ARGUMENTS, "AutoencoderKL")
    encoder, decoder = trunks(c, 2 * c["latent_channels"], "AutoencoderKL")
    module = AutoencoderKL(
        encoder, decoder, c["latent_channels"], c["use_quant_conv"], c["use_post_quant_conv"]
    )
    names = trunk_names(module)
    if module.quant_conv:
        names |= kernel_names("quant_conv", ("to_moments",), conv_1x1)
    if module.post_quant_conv:
        names |= kernel_names("post_quant_conv", ("from_latents",), conv_1x1)
    return architecture(c, module, names)


def vq_model(config: dict[str, Any]) -> Architecture:
    """diffusers' VQModel: its mean is z before it is quantised, which `decode` does.

    Args:
      config: its constructor's arguments.

    Raises:
      InputError: an argument that it does not have, or a value that is not built here.
    """
    c = known_arguments(config, VQ_ARGUMENTS, "VQModel")
    supported(c, "VQModel", norm_type=("group",))
    encoder, decoder = trunks(c, c["latent_channels"], "VQModel")
    module = VQModel(
        encoder, decoder, c["latent_channels"], c["num_vq_embeddings"], c["vq_embed_dim"]
    )
    names = trunk_names(module)
    names |= kernel_names("quant_conv", ("to_codes",), conv_1x1)
    names |= kernel_names("post_quant_conv", ("from_codes",), conv_1x1)
    names["quantize.embedding.weight"] = Entry(("codebook",), same)
    return architecture(c, module, names, point)


def asymmetric_kl(config: dict[str, Any]) -> Architecture:
    """diffusers' AsymmetricAutoencoderKL, whose decoder takes an image and a mask of what to keep.

    Args:
      config: its constructor's arguments.

    Raises:
      InputError: an argument that it does not have, or a value that is not built here.
    """
    where = "AsymmetricAutoencoderKL"
    c = known_arguments(config, ASYMMETRIC_ARGUMENTS, where)
    sides = [
        c
        | {
            "block_out_channels": c[f"{way}_block_out_channels"],
            "layers_per_block": c[f"layers_per_{way}_block"],
            other: [kind] * len(c[f"{way}_block_out_channels"]),
        }
        for way, other, kind in (
            ("down", "up_block_types", "UpDecoderBlock2D"),
            ("up", "down_block_types", "DownEncoderBlock2D"),
        )
    ]
    latents = c["latent_channels"]
    encoder, decoder = (trunks(side, 2 * latents, where)[i] for i, side in enumerate(sides))
    attributes = Trunk.__dataclass_fields__.keys() - {"parent", "name"}
    keeping = KeepingDecoder(**{name: getattr(decoder, name) for name in attributes})
    module = AsymmetricAutoencoder(encoder, keeping, latents)
    names = trunk_names(module) | quant_names()
    for i in range(STEPS + 1):
        theirs = f"decoder.condition_encoder.layers.{i}"
        names |= kernel_names(theirs, ("decoder", "kept", f"layer_{i}"), conv)
    size = 2 ** max(len(encoder.channels) - 1, len(decoder.channels) - 1, 3)
    image, mask = (
        jax.ShapeDtypeStruct((1, size, size, n), np.float32) for n in (c["in_channels"], 1)
    )
    return Architecture(module, (image, mask), names, encoding(module))


def quant_names() -> Names:
    """The 1x1 layers between the nets and the latents."""
    names = kernel_names("quant_conv", ("to_moments",), conv_1x1)
    return names | kernel_names("post_quant_conv", ("from_latents",), conv_1x1)


def architecture(
    c: dict, module: nn.Module, names: Names, moments: Callable = lambda both: both
) -> Architecture:
    """The architecture of either, on the smallest image that it can halve often enough."""
    size = 2 ** (len(c["block_out_channels"]) - 1)
    image = jax.ShapeDtypeStruct((1, size, size, c["in_channels"]), np.float32)
    return Architecture(module, (image,), names, encoding(module, moments), modern=modern_name)


def trunks(c: dict[str, Any], encoder_out: int, where: str) -> tuple[Encoder, Decoder]:
    """The two nets.

    Args:
      c: arguments of the reference, all of them.
      encoder_out: channels of the encoder's output.
      where: the reference's name, for errors.

    Raises:
      InputError: a kind of block that is not built here, or lists of different lengths.
    """
    supported(c, where, act_fn=("silu", "swish"))
    kinds = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
    levels = len(c["block_out_channels"])
    for argument, kind in kinds.items():
        if len(c[argument]) != levels or not set(c[argument]) <= {kind, f"Attn{kind}"}:
            raise InputError(
                f"config.json: {where} with {argument} = {list(c[argument])} is not supported; "
                f"expected {levels} of {kind!r} or 'Attn{kind}', one per entry of "
                "block_out_channels."
            )
    attend = {name: [kind.startswith("Attn") for kind in c[name]] for name in kinds}
    up = attend["up_block_types"][::-1]
    shared = {
        "channels": tuple(c["block_out_channels"]),
        "blocks": c["layers_per_block"],
        "middle_attention": c["mid_block_add_attention"],
        "groups": c["norm_num_groups"],
    }
    at = lambda flags: tuple(int(i) for i in np.flatnonzero(flags))  # noqa: E731
    return (
        Encoder(encoder_out, attention_levels=at(attend["down_block_types"]), **shared),
        Decoder(c["out_channels"], attention_levels=at(up), **shared),
    )


# --- names --------------------------------------------------------------------------------


def block_names(theirs: str, ours: tuple[str, ...], widens: bool) -> Names:
    """A residual block."""
    names = scale_names(f"{theirs}.norm1", (*ours, "norm_in"))
    names |= kernel_names(f"{theirs}.conv1", (*ours, "conv_in"), conv)
    names |= scale_names(f"{theirs}.norm2", (*ours, "norm_out"))
    names |= kernel_names(f"{theirs}.conv2", (*ours, "conv_out"), conv)
    if widens:
        names |= kernel_names(f"{theirs}.conv_shortcut", (*ours, "skip"), conv_1x1)
    return names


def attention_names(theirs: str, ours: tuple[str, ...]) -> Names:
    """An attention block; its query, key and value are one layer of ours."""
    names = scale_names(f"{theirs}.group_norm", (*ours, "norm"))
    for i, piece in enumerate(("to_q", "to_k", "to_v")):
        names[f"{theirs}.{piece}.weight"] = Entry((*ours, "qkv", "kernel"), dense, (i, 3))
        names[f"{theirs}.{piece}.bias"] = Entry((*ours, "qkv", "bias"), same, (i, 3))
    return names | kernel_names(f"{theirs}.to_out.0", (*ours, "projection"), dense)


def level_names(net: Trunk, theirs: str, ours: tuple[str, str], level: int, widths) -> Names:
    """The blocks of one resolution, from the channels that come in to those that go out."""
    names: Names = {}
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        part, name = ours
        names |= block_names(f"{theirs}.resnets.{i}", (part, f"{name}_{i}"), before != after)
        if level in net.attention_levels:
            names |= attention_names(f"{theirs}.attentions.{i}", (part, f"{name}_{i}_attention"))
    return names


def ends_names(net: Trunk, part: str) -> Names:
    """What encoder and decoder both have: the first layer, the middle, the last two."""
    names = kernel_names(f"{part}.conv_in", (part, "conv_in"), conv)
    for i in range(2):
        names |= block_names(f"{part}.mid_block.resnets.{i}", (part, f"middle_{i}"), False)
    if net.middle_attention:
        names |= attention_names(f"{part}.mid_block.attentions.0", (part, "middle_attention"))
    names |= scale_names(f"{part}.conv_norm_out", (part, "norm_out"))
    return names | kernel_names(f"{part}.conv_out", (part, "conv_out"), conv)


def trunk_names(module: AutoencoderKL | VQModel) -> Names:
    """All tensors of the two nets; the reference counts the decoder's levels from the coarsest."""
    encoder, decoder = module.encoder, module.decoder
    last = len(encoder.channels) - 1
    names = ends_names(encoder, "encoder") | ends_names(decoder, "decoder")
    for level, width in enumerate(encoder.channels):
        theirs, ours = f"encoder.down_blocks.{level}", f"down_{level}"
        before = encoder.channels[max(level - 1, 0)]
        widths = [before, *[width] * encoder.blocks]
        names |= level_names(encoder, theirs, ("encoder", ours), level, widths)
        if level < last:
            ours = ("encoder", f"downsample_{level}")
            names |= kernel_names(f"{theirs}.downsamplers.0.conv", ours, conv)
    last = len(decoder.channels) - 1
    for level, width in enumerate(decoder.channels):
        theirs, ours = f"decoder.up_blocks.{last - level}", f"up_{level}"
        before = decoder.channels[min(level + 1, last)]
        widths = [before, *[width] * (decoder.blocks + 1)]
        names |= level_names(decoder, theirs, ("decoder", ours), level, widths)
        if level > 0:
            ours = ("decoder", f"upsample_{level}")
            names |= kernel_names(f"{theirs}.upsamplers.0.conv", ours, conv)
    return names
