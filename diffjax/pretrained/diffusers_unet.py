"""diffusers' UNet2DModel and UNet2DConditionModel as our U-Net.

Conditions: `label` where the configuration has num_class_embeds; `tokens` for what diffusers
calls encoder_hidden_states; `vector` for class labels of class_embed_type "projection", and for
addition_embed_type "text_time" (Stable Diffusion XL) the text's embedding and
`sinusoidal_embedding` of each time id, joined; `embedding` for those of "identity".
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from diffjax.models import UNet
from diffjax.models.resnet import ConvDown, ConvUp, Style, nearest_to, residual_down, residual_up
from diffjax.models.unet import Level
from diffjax.models.unet_attention import (
    Attend,
    PixelAttention,
    PixelTextAttention,
    SpatialTransformer,
)
from diffjax.pretrained.architecture import (
    Architecture,
    denoising,
    image_inputs,
    known_arguments,
    supported,
)
from diffjax.pretrained.diffusers_unet_config import (
    CONDITION,
    CROSS,
    PLAIN,
    RESAMPLE_TYPES,
    RESIDUAL,
    SELF,
    SIMPLE,
    SIMPLE_MIDDLE,
    UNET2D,
    check_condition,
    check_heads,
    check_shared,
    per_level,
)
from diffjax.pretrained.diffusers_unet_names import modern_name, unet_names
from diffjax.pretrained.naming import Names
from diffjax.pretrained.scheduler import noise_of


def unet2d(config: dict[str, Any]) -> Architecture:
    """UNet2DModel: the networks of DDPM, and others without cross-attention.

    Args:
      config: diffusers' config.json, perhaps with its scheduler's (see `noise_of`).

    Raises:
      InputError: an argument is unknown or not supported.
    """
    where = "UNet2DModel"
    c = known_arguments(config, UNET2D, where)
    check_shared(c, where, PLAIN + SELF + RESIDUAL)
    types = RESAMPLE_TYPES
    supported(c, where, mid_block_type=("UNetMidBlock2D", None), class_embed_type=(None,))
    supported(c, where, downsample_type=types, upsample_type=types)
    n = len(c["block_out_channels"])
    attend = self_attention(c["attention_head_dim"])
    attends = [attend] * n
    module = UNet(
        middle=unet2d_middle(c, attend),
        **both_ways(c, attends, attends),
        **shared_attributes(c),
    )
    return finished(config, c, module, {})


def unet2d_middle(c: dict[str, Any], attend: Attend) -> tuple[Attend | None, ...] | None:
    """What attends in the middle of UNet2DModel: without a norm where none is asked for."""
    if c["mid_block_type"] is None:
        return None
    if not c["add_attention"]:
        return (None,)
    groups = c["attn_norm_num_groups"]
    supported(c, "UNet2DModel", attn_norm_num_groups=(None, c["norm_num_groups"]))
    normed = groups is not None or c["resnet_time_scale_shift"] == "default"
    return (partial(attend, normed=normed),)


def unet2d_condition(config: dict[str, Any]) -> Architecture:
    """UNet2DConditionModel: Stable Diffusion and others that read tokens.

    Args:
      config: diffusers' config.json, perhaps with its scheduler's (see `noise_of`).

    Raises:
      InputError: an argument is unknown or not supported.
    """
    c = known_arguments(config, CONDITION, "UNet2DConditionModel")
    module, cond = condition_module(c, "UNet2DConditionModel")
    return finished(config, c, module, cond)


def condition_module(c: dict[str, Any], where: str) -> tuple[UNet, dict[str, tuple]]:
    """The U-Net of UNet2DConditionModel's arguments, and its conditions as for `image_inputs`."""
    check_shared(c, where, PLAIN + SELF + CROSS + RESIDUAL + SIMPLE)
    check_condition(c, where)
    n = len(c["block_out_channels"])
    heads, depths, reads, dims = (
        per_level(c[name], n, name)
        for name in (
            "attention_head_dim",  # the number of heads where a transformer attends
            "transformer_layers_per_block",
            "only_cross_attention",
            "attention_head_dim",
        )
    )
    check_heads(c, heads)
    cross = [
        partial(SpatialTransformer, heads=h, depth=d, reads_first=bool(r))
        for h, d, r in zip(heads, depths, reads, strict=True)
    ]
    middles = {
        "UNetMidBlock2DCrossAttn": (
            partial(SpatialTransformer, heads=heads[-1], depth=depths[-1]),
        ),
        SIMPLE_MIDDLE: (simple_attention(dims[-1]),),
        "UNetMidBlock2D": (),
        None: None,
    }
    module = UNet(
        middle=middles[c["mid_block_type"]],
        **both_ways(
            c,
            choose(c["down_block_types"], cross, dims),
            # The reference reverses every list but this one on the way up.
            choose(c["up_block_types"][::-1], cross, dims[::-1]),
        ),
        vector=needs_vector(c),
        guidance=c["time_cond_proj_dim"] or 0,
        embedded=c["class_embed_type"] == "identity",
        resize=nearest_to,
        **shared_attributes(c),
    )
    cond = {"tokens": ((1, c["cross_attention_dim"]), np.float32)}
    if module.vector:
        cond["vector"] = ((c["projection_class_embeddings_input_dim"],), np.float32)
    if module.embedded:
        cond["embedding"] = ((module.embedding_channels or 4 * module.channels,), np.float32)
    if module.guidance:
        cond["guidance"] = ((), np.float32)
    return module, cond


def self_attention(head_dim: int | None) -> Attend:
    """Self-attention of heads of that width, or of one head."""
    if head_dim is None:
        return partial(PixelAttention, heads=1)
    return partial(PixelAttention, head_channels=head_dim)


def simple_attention(head_dim: int) -> Attend:
    """Attention to pixels and tokens at once, of heads of that width."""
    return partial(PixelTextAttention, head_channels=head_dim)


def choose(types: Sequence[str], cross: Sequence[Attend], dims: Sequence[int]) -> list[Attend]:
    """What attends at each level, by the type of its block and the width of a head in it."""

    def attend(kind, across, dim):
        if kind in SIMPLE:
            return simple_attention(dim)
        return across if kind in CROSS else self_attention(dim)

    return [*map(attend, types, cross, dims)]


def both_ways(
    c: dict[str, Any], down_attends: Sequence[Attend], up_attends: Sequence[Attend]
) -> dict[str, tuple[Level, ...]]:
    """`down` and `up` of our U-Net; `up` in the order of the levels, which diffusers reverses."""
    n = len(c["block_out_channels"])
    blocks = per_level(c["layers_per_block"], n, "layers_per_block")
    conv_down = partial(ConvDown, padding=(1, 1) if c["downsample_padding"] else (0, 1))
    down_types, up_types = c["down_block_types"], c["up_block_types"][::-1]

    def level(i, block, extra, attend, resample):
        attend = attend if block in SELF + CROSS + SIMPLE else None
        return Level(c["block_out_channels"][i], blocks[i] + extra, attend, resample)

    def resample(block, setting, conv, residual):
        by_residual = block in RESIDUAL + SIMPLE or (block in SELF and setting == "resnet")
        return residual if by_residual else conv

    down, up = [], []
    for i in range(n):
        falls = resample(down_types[i], c.get("downsample_type"), conv_down, residual_down)
        rises = resample(up_types[i], c.get("upsample_type"), ConvUp, residual_up)
        down.append(level(i, down_types[i], 0, down_attends[i], falls if i < n - 1 else None))
        up.append(level(i, up_types[i], 1, up_attends[i], rises if i > 0 else None))
    return {"down": tuple(down), "up": tuple(up)}


def needs_vector(c: dict[str, Any]) -> bool:
    """Whether a vector per image is embedded."""
    return c["class_embed_type"] == "projection" or c["addition_embed_type"] == "text_time"


def shared_attributes(c: dict[str, Any]) -> dict[str, Any]:
    """Attributes of our U-Net that both networks give alike."""
    scale_shift = c["resnet_time_scale_shift"] == "scale_shift"
    labels = c["num_class_embeds"] if c["class_embed_type"] is None else None
    return {
        "channels": c["block_out_channels"][0],
        "out_channels": c["out_channels"],
        "num_classes": labels or 0,
        "null_label": False,
        "embedding_channels": c["time_embedding_dim"],
        "frequency_shift": float(c["freq_shift"]),
        "style": Style(c["norm_num_groups"], c["norm_eps"], scale_shift, c["dropout"]),
    }


def finished(
    config: dict[str, Any], c: dict[str, Any], module: UNet, cond: dict[str, tuple]
) -> Architecture:
    """The architecture of a module."""
    finish = denoising(module, *noise_of(config))
    inputs = smallest_inputs(module, c, cond)
    return Architecture(module, inputs, names_of(module, c), finish, modern=modern_name)


def smallest_inputs(module: UNet, c: dict[str, Any], cond: dict[str, tuple]) -> tuple:
    """Shapes of (x, t, cond) of the smallest image; no parameter depends on it."""
    if module.num_classes:
        cond = cond | {"label": ((), np.int32)}
    return image_inputs(2 ** (len(module.down) - 1), c["in_channels"], cond or None)


def names_of(module: UNet, c: dict[str, Any]) -> Names:
    """The names of its tensors."""
    return unet_names(
        module,
        cosine_first=c["flip_sin_to_cos"],
        linear=bool(c.get("use_linear_projection")),
        vector="add_embedding" if c.get("addition_embed_type") else "class_embedding",
    )
