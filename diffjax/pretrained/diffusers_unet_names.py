"""The tensors of diffusers' U-Nets among the parameters of ours."""

import re

import numpy as np

from diffjax.models import UNet
from diffjax.models.resnet import ConvDown, ConvUp, residual_down, residual_up
from diffjax.models.unet_attention import Attend, PixelTextAttention, SpatialTransformer, kind
from diffjax.pretrained.naming import (
    Entry,
    Names,
    conv_1x1,
    dense,
    inputs_reordered,
    outputs_reordered,
)
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

OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def modern_name(name: str) -> str:
    """Today's name of a tensor; files of before 2023 name attention layers differently."""
    return re.sub(
        r"(attentions\.\d+)\.(query|key|value|proj_attn)\.",
        lambda match: f"{match[1]}.{OLD[match[2]]}.",
        name,
    )


def unet_names(module: UNet, cosine_first: bool, linear: bool, vector: str) -> Names:
    """Every tensor of UNet2DModel or UNet2DConditionModel.

    Args:
      module: ours.
      cosine_first: whether the reference's time embedding has its cosines first, as ours.
      linear: whether transformers begin and end with dense layers and not (1, 1) convolutions.
      vector: the reference's name of the layers that embed `cond["vector"]`.
    """
    last = len(module.down) - 1

    def at(place, part, number):
        level = last - place.level if place.way == "up" else place.level
        block = "mid_block" if place.way == "middle" else f"{place.way}_blocks.{level}"
        return f"{block}.{part}.{number}"

    def resample(place, ours, level):
        names = RESAMPLE_NAMES[kind(level.resample)]
        return names(at(place, f"{place.way}samplers", 0), ours)

    def attend(place, ours, attend, channels):
        return attend_names(at(place, "attentions", place.block), ours, attend, linear)

    def residual(place, ours, skip):
        return residual_names(at(place, "resnets", place.block), ours, skip)

    layers = layers_names(module, Spelling(residual, attend, resample))
    return ends_names(module, cosine_first, vector) | layers


def ends_names(module: UNet, cosine_first: bool, vector: str) -> Names:
    """What is outside the levels."""
    half = module.channels // 2
    order = np.roll(np.arange(2 * half), 0 if cosine_first else half)
    time_in = inputs_reordered(dense, order)
    table = merged(
        conv_names("conv_in", ("conv_in",)),
        kernel_names("time_embedding.linear_1", ("embedding", "time_in"), time_in),
        dense_names("time_embedding.linear_2", ("embedding", "time_out")),
    )
    if module.up:
        table |= scale_names("conv_norm_out", ("norm_out",))
        table |= conv_names("conv_out", ("conv_out",))
    if module.guidance:
        table["time_embedding.cond_proj.weight"] = guidance_entry(module.guidance, order)
    if module.num_classes:
        table["class_embedding.weight"] = Entry(("embedding", "label", "embedding"))
    if module.vector:
        table |= dense_names(f"{vector}.linear_1", ("embedding", "vector_in"))
        table |= dense_names(f"{vector}.linear_2", ("embedding", "vector_out"))
    return table


def guidance_entry(width: int, order: np.ndarray) -> Entry:
    """The layer from the guidance scale's sinusoid, whose sines the reference has first."""
    sines_first = np.roll(np.arange(width), width // 2)
    layout = outputs_reordered(inputs_reordered(dense, sines_first), order)
    return Entry(("embedding", "guidance", "kernel"), layout)


def residual_names(theirs: str, ours: Path, skip: bool = False) -> Names:
    """ResnetBlock2D."""
    return merged(
        scale_names(f"{theirs}.norm1", (*ours, "norm_in")),
        conv_names(f"{theirs}.conv1", (*ours, "conv_in")),
        dense_names(f"{theirs}.time_emb_proj", (*ours, "modulation")),
        scale_names(f"{theirs}.norm2", (*ours, "norm_out")),
        conv_names(f"{theirs}.conv2", (*ours, "conv_out")),
        kernel_names(f"{theirs}.conv_shortcut", (*ours, "skip"), conv_1x1) if skip else {},
    )


def conv_resample_names(theirs: str, ours: Path) -> Names:
    """Downsample2D and Upsample2D."""
    return conv_names(f"{theirs}.conv", (*ours, "conv"))


RESAMPLE_NAMES = {
    residual_down: residual_names,
    residual_up: residual_names,
    ConvDown: conv_resample_names,
    ConvUp: conv_resample_names,
}


def attend_names(theirs: str, ours: Path, attend: Attend, linear: bool) -> Names:
    """Attention or Transformer2DModel."""
    if kind(attend) is SpatialTransformer:
        return transformer_names(theirs, ours, attend.keywords, linear)
    if kind(attend) is PixelTextAttention:
        theirs_too = [
            dense_names(f"{theirs}.add_{letter}_proj", (*ours, "kv"), (i, 2))
            for i, letter in enumerate("kv")
        ]
        return merged(pixel_names(theirs, ours, True), *theirs_too)
    return pixel_names(theirs, ours, attend.keywords.get("normed", True))


def pixel_names(theirs: str, ours: Path, normed: bool) -> Names:
    """Attention of the pixels to themselves."""
    return merged(
        scale_names(f"{theirs}.group_norm", (*ours, "norm")) if normed else {},
        *(
            dense_names(f"{theirs}.to_{letter}", (*ours, "qkv"), (i, 3))
            for i, letter in enumerate("qkv")
        ),
        dense_names(f"{theirs}.to_out.0", (*ours, "projection")),
    )


def transformer_names(theirs: str, ours: Path, keywords: dict, linear: bool) -> Names:
    """Transformer2DModel."""
    layout = dense if linear else conv_1x1
    table = merged(
        scale_names(f"{theirs}.norm", (*ours, "norm")),
        kernel_names(f"{theirs}.proj_in", (*ours, "project_in"), layout),
        kernel_names(f"{theirs}.proj_out", (*ours, "project_out"), layout),
    )
    for i in range(keywords["depth"]):
        place, path = f"{theirs}.transformer_blocks.{i}", (*ours, f"block_{i}")
        reads = (keywords.get("reads_first", False), True)
        for n in (1, 2, 3):
            table |= scale_names(f"{place}.norm{n}", (*path, f"norm_{n}"))
        for n in (1, 2):
            table |= read_names(f"{place}.attn{n}", (*path, f"attention_{n}"), reads[n - 1])
        if keywords.get("images"):
            table |= image_names(f"{place}.attn2", (*path, "attention_2", "kv_image", "kernel"))
        table |= dense_names(f"{place}.ff.net.0.proj", (*path, "ff_in"))
        table |= dense_names(f"{place}.ff.net.2", (*path, "ff_out"))
    return table


def image_names(theirs: str, ours: Path) -> Names:
    """An IP-Adapter's keys and values."""
    return {
        f"{theirs}.to_{letter}_ip.weight": Entry(ours, dense, (i, 2))
        for i, letter in enumerate("kv")
    }


def read_names(theirs: str, ours: Path, reads: bool) -> Names:
    """Attention of a transformer block, which is to the tokens or to itself."""
    where = (
        [("q", 0, 1), ("kv", 0, 2), ("kv", 1, 2)] if reads else [("qkv", i, 3) for i in range(3)]
    )
    table = {
        f"{theirs}.to_{letter}.weight": Entry((*ours, layer, "kernel"), dense, (i, n))
        for letter, (layer, i, n) in zip("qkv", where, strict=True)
    }
    return table | dense_names(f"{theirs}.to_out.0", (*ours, "projection"))
