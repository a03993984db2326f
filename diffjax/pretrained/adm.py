"""guided-diffusion's UNetModel and its classifier, EncoderUNetModel: config and names.

A configuration is {"architecture": "adm"} or {"architecture": "adm_classifier"} with the
arguments of the reference's constructor.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.models import Classifier, UNet
from diffjax.models import network as as_network
from diffjax.models.classifier import AttentionPool, MeanPool
from diffjax.models.resnet import (
    ConvDown,
    ConvUp,
    Resample,
    Style,
    nearest_up,
    pool_down,
    residual_down,
    residual_up,
)
from diffjax.models.unet_attention import PixelAttention, kind
from diffjax.models.unet_presets import both_ways, levels
from diffjax.pretrained.architecture import (
    Architecture,
    PretrainedClassifier,
    denoising,
    image_inputs,
    known_arguments,
    supported,
)
from diffjax.pretrained.naming import (
    Entry,
    Layout,
    Names,
    conv_1d,
    conv_1x1,
    dense,
    outputs_reordered,
    same,
)
from diffjax.pretrained.scheduler import noise_of
from diffjax.pretrained.unet_names import (
    Path,
    Spelling,
    conv_names,
    dense_names,
    kernel_names,
    layers_names,
    merged,
    scale_names,
)

REQUIRED = (
    "image_size",
    "in_channels",
    "model_channels",
    "out_channels",
    "num_res_blocks",
    "attention_resolutions",
)
SHARED = {
    **dict.fromkeys(REQUIRED),
    "dropout": 0,
    "channel_mult": (1, 2, 4, 8),
    "conv_resample": True,
    "dims": 2,
    "use_checkpoint": False,
    "use_fp16": False,
    "num_heads": 1,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "use_new_attention_order": False,
}


def adm(config: dict[str, Any]) -> Architecture:
    """UNetModel of guided-diffusion (Dhariwal & Nichol 2021), which predicts eps.

    Args:
      config: its constructor's arguments.

    Raises:
      InputError: an argument is unknown, missing or not supported.
    """
    c = arguments(config, SHARED | {"num_classes": None}, "UNetModel")
    heads = c["num_heads"]
    up_heads = heads if c["num_heads_upsample"] == -1 else c["num_heads_upsample"]
    module = UNet(
        c["model_channels"],
        **both_ways(
            widths_of(c),
            c["num_res_blocks"],
            attends_of(c, heads),
            resamples_of(c),
            attends_of(c, up_heads),
        ),
        middle=(attend_of(c, heads),),
        out_channels=c["out_channels"],
        num_classes=c["num_classes"] or 0,
        null_label=False,
        style=style_of(c),
    )
    cond = {"label": ((), np.int32)} if c["num_classes"] else None
    inputs = image_inputs(c["image_size"], c["in_channels"], cond)
    names = unet_names(module, c["use_new_attention_order"])
    return Architecture(module, inputs, names, denoising(module, *noise_of(config)))


def adm_classifier(config: dict[str, Any]) -> Architecture:
    """EncoderUNetModel of guided-diffusion, for classifier guidance.

    Args:
      config: its constructor's arguments; `pool` is "adaptive" or "attention".

    Raises:
      InputError: an argument is unknown, missing or not supported.
    """
    c = arguments(config, SHARED | {"pool": "adaptive"}, "EncoderUNetModel")
    supported(c, "EncoderUNetModel", pool=("adaptive", "attention"))
    pool = partial(MeanPool, outputs=c["out_channels"])
    if c["pool"] == "attention":
        pool = partial(
            AttentionPool, outputs=c["out_channels"], head_channels=c["num_head_channels"]
        )
    attends = attends_of(c, c["num_heads"])
    module = Classifier(
        c["model_channels"],
        levels(widths_of(c), c["num_res_blocks"], attends, resamples_of(c)[0]),
        middle=(attend_of(c, c["num_heads"]),),
        pool=pool,
        style=style_of(c),
    )

    def finish(params, config):
        return PretrainedClassifier(as_network(module), params, module, config)

    inputs = image_inputs(c["image_size"], c["in_channels"])
    return Architecture(
        module, inputs, classifier_names(module, c["use_new_attention_order"]), finish
    )


def arguments(config: dict[str, Any], expected: dict[str, Any], where: str) -> dict[str, Any]:
    """The reference's arguments, checked.

    Raises:
      InputError: one is unknown, missing or not supported.
    """
    c = known_arguments(config, expected, where)
    missing = [name for name in REQUIRED if c[name] is None]
    if missing:
        raise InputError(f"config.json: {where} needs {', '.join(missing)}.")
    supported(c, where, dims=(2,))
    return c


def widths_of(c: dict[str, Any]) -> list[int]:
    """Channels of each level."""
    return [int(m * c["model_channels"]) for m in c["channel_mult"]]


def style_of(c: dict[str, Any]) -> Style:
    """What the blocks share."""
    return Style(32, 1e-5, bool(c["use_scale_shift_norm"]), c["dropout"])


def attend_of(c: dict[str, Any], heads: int) -> Callable[..., PixelAttention]:
    """Self-attention of as many heads, or of heads as wide as the configuration says."""
    if c["num_head_channels"] != -1:
        return partial(PixelAttention, head_channels=c["num_head_channels"])
    return partial(PixelAttention, heads=heads)


def attends_of(c: dict[str, Any], heads: int) -> list[Callable[..., PixelAttention] | None]:
    """What attends at each level; the reference names levels by their factor of reduction."""
    where = c["attention_resolutions"]
    attend = attend_of(c, heads)
    return [attend if 2**i in where else None for i in range(len(c["channel_mult"]))]


def resamples_of(c: dict[str, Any]) -> tuple[Resample, Resample]:
    """What leads down and up."""
    if c["resblock_updown"]:
        return residual_down, residual_up
    return (ConvDown, ConvUp) if c["conv_resample"] else (pool_down, nearest_up)


def residual_names(theirs: str, ours: Path, skip: bool = False) -> Names:
    """ResBlock."""
    return merged(
        scale_names(f"{theirs}.in_layers.0", (*ours, "norm_in")),
        conv_names(f"{theirs}.in_layers.2", (*ours, "conv_in")),
        dense_names(f"{theirs}.emb_layers.1", (*ours, "modulation")),
        scale_names(f"{theirs}.out_layers.0", (*ours, "norm_out")),
        conv_names(f"{theirs}.out_layers.3", (*ours, "conv_out")),
        kernel_names(f"{theirs}.skip_connection", (*ours, "skip"), conv_1x1) if skip else {},
    )


def attention_names(theirs: str, ours: Path, heads: int, width: int, new_order: bool) -> Names:
    """AttentionBlock, whose older order of channels is head by head."""
    by_head = np.arange(3 * width).reshape(heads, 3, width // heads).transpose(1, 0, 2).ravel()
    order = np.arange(3 * width) if new_order else by_head
    qkv, bias = (outputs_reordered(layout, order) for layout in (conv_1d, same))
    return merged(
        scale_names(f"{theirs}.norm", (*ours, "norm")),
        kernel_names(f"{theirs}.qkv", (*ours, "qkv"), qkv, bias=bias),
        kernel_names(f"{theirs}.proj_out", (*ours, "projection"), conv_1d),
    )


RESAMPLE_NAMES = {
    residual_down: residual_names,
    residual_up: residual_names,
    ConvDown: lambda theirs, ours: conv_names(f"{theirs}.op", (*ours, "conv")),
    ConvUp: lambda theirs, ours: conv_names(f"{theirs}.conv", (*ours, "conv")),
    pool_down: lambda theirs, ours: {},
    nearest_up: lambda theirs, ours: {},
}


def spelling(new_order: bool) -> Spelling:
    """Layers are numbered through; one of ours is one or two of theirs in a row."""

    def at(place, part):
        if place.way == "middle":
            return f"middle_block.{2 * place.index + part}"
        if place.way == "down":  # after the first convolution and each level's resampling
            return f"input_blocks.{1 + place.index + place.level}.{part}"
        return f"output_blocks.{place.index}.{part}"

    def residual(place, ours, skip):
        return residual_names(at(place, 0), ours, skip)

    def attend(place, ours, attend, channels):
        given = attend.keywords
        heads = given.get("heads") or max(channels // given["head_channels"], 1)
        return attention_names(at(place, 1), ours, heads, channels, new_order)

    def resample(place, ours, level):
        names = RESAMPLE_NAMES[level.resample]
        if place.way == "down":
            return names(at(place, 0), ours)
        # Beside the last layer, after its attention.
        last = place._replace(index=place.index - 1)
        return names(at(last, 1 if level.attend is None else 2), ours)

    return Spelling(residual, attend, resample)


def shared_names(module: UNet | Classifier, new_order: bool) -> Names:
    """What both networks have: the embedding of time, the first convolution and all layers."""
    return merged(
        dense_names("time_embed.0", ("embedding", "time_in")),
        dense_names("time_embed.2", ("embedding", "time_out")),
        conv_names("input_blocks.0.0", ("conv_in",)),
        layers_names(module, spelling(new_order)),
    )


def unet_names(module: UNet, new_order: bool) -> Names:
    """UNetModel's tensors among the parameters of our module."""
    table = shared_names(module, new_order)
    if module.num_classes:
        table["label_emb.weight"] = Entry(("embedding", "label", "embedding"))
    return merged(table, scale_names("out.0", ("norm_out",)), conv_names("out.2", ("conv_out",)))


def classifier_names(module: Classifier, new_order: bool) -> Names:
    """EncoderUNetModel's tensors among the parameters of our module."""
    table = shared_names(module, new_order) | scale_names("out.0", ("pool", "norm"))
    if kind(module.pool) is MeanPool:
        return table | kernel_names("out.3", ("pool", "projection"), conv_1x1)
    positions: Layout = dense
    return table | merged(
        {"out.2.positional_embedding": Entry(("pool", "positions"), positions)},
        kernel_names("out.2.qkv_proj", ("pool", "qkv"), conv_1d),
        kernel_names("out.2.c_proj", ("pool", "projection"), conv_1d),
    )
