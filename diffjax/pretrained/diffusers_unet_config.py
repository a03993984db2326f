"""What the configurations of diffusers' U-Nets may say, and what is refused."""

from collections.abc import Sequence
from typing import Any

from diffjax.errors import InputError
from diffjax.pretrained.architecture import supported

SHARED = {
    "sample_size": None,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "class_embed_type": None,
    "num_class_embeds": None,
    "layers_per_block": 2,
    "attention_head_dim": 8,
}
UNET2D = SHARED | {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "downsample_type": "conv",
    "upsample_type": "conv",
    "attn_norm_num_groups": None,
    "add_attention": True,
    "num_train_timesteps": None,
}
CONDITION = SHARED | {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "only_cross_attention": False,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "upcast_attention": False,
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}
CONTROL_OWN = {
    "conditioning_channels": 3,
    "controlnet_conditioning_channel_order": "rgb",
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
    "global_pool_conditions": False,
}
"""What ControlNetModel has and UNet2DConditionModel has not."""
NOT_CONTROL = (
    "sample_size",
    "out_channels",
    "up_block_types",
    "center_input_sample",
    "time_embedding_type",
    "time_embedding_dim",
    "dropout",
    "reverse_transformer_layers_per_block",
    "dual_cross_attention",
    "resnet_skip_time_act",
    "resnet_out_scale_factor",
    "time_embedding_act_fn",
    "timestep_post_act",
    "time_cond_proj_dim",
    "conv_in_kernel",
    "conv_out_kernel",
    "attention_type",
    "class_embeddings_concat",
    "mid_block_only_cross_attention",
    "cross_attention_norm",
)
"""What UNet2DConditionModel has and ControlNetModel has not."""
CONTROL = {k: v for k, v in CONDITION.items() if k not in NOT_CONTROL} | CONTROL_OWN
PLAIN = ("DownBlock2D", "UpBlock2D")
SELF = ("AttnDownBlock2D", "AttnUpBlock2D")
CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
RESIDUAL = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
SIMPLE_MIDDLE = "UNetMidBlock2DSimpleCrossAttn"
SIMPLE = ("SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D")
RESAMPLE_TYPES = ("conv", "resnet", None)


def check_condition(c: dict[str, Any], where: str) -> None:
    """Refuse what UNet2DConditionModel alone can ask for and is not built here.

    Raises:
      InputError: names the setting.
    """
    fixed = (
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "num_attention_heads",
        "dual_cross_attention",
        "resnet_skip_time_act",
        "resnet_out_scale_factor",
        "time_embedding_act_fn",
        "timestep_post_act",
        "conv_in_kernel",
        "conv_out_kernel",
        "attention_type",
        "class_embeddings_concat",
        "cross_attention_norm",
        "reverse_transformer_layers_per_block",
    )
    supported(c, where, **{name: (CONDITION[name],) for name in fixed})
    supported(
        c,
        where,
        mid_block_type=("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", SIMPLE_MIDDLE, None),
        class_embed_type=(None, "projection", "identity"),
        addition_embed_type=(None, "text_time"),
    )
    if c["mid_block_type"] == SIMPLE_MIDDLE or {*SIMPLE} & {*c["down_block_types"]}:
        supported(c, where, only_cross_attention=(False,))
    if not isinstance(c["cross_attention_dim"], int):
        raise InputError(
            f"config.json: {where} with one cross_attention_dim per level is not supported; "
            "expected an integer."
        )


def check_shared(c: dict[str, Any], where: str, blocks: Sequence[str]) -> None:
    """Refuse what either network can ask for and is not built here.

    Raises:
      InputError: names the setting.
    """
    supported(
        c,
        where,
        center_input_sample=(False,),
        time_embedding_type=("positional",),
        mid_block_scale_factor=(1,),
        downsample_padding=(0, 1),
        act_fn=("silu", "swish"),
        resnet_time_scale_shift=("default", "scale_shift"),
    )
    n = len(c["block_out_channels"])
    for name in ("down_block_types", "up_block_types"):
        if len(c[name]) != n:
            raise InputError(
                f"config.json: {where} with {n} block_out_channels needs {n} {name}; "
                f"got {len(c[name])}."
            )
        for block in c[name]:
            supported({name: block}, where, **{name: tuple(blocks)})


def check_heads(c: dict[str, Any], heads: Sequence[int]) -> None:
    """Refuse widths that do not divide into their heads.

    Raises:
      InputError: names them.
    """
    for width, count in zip(c["block_out_channels"], heads, strict=True):
        if width % count:
            raise InputError(
                f"config.json: attention_head_dim (the number of heads) {count} does not divide "
                f"the {width} channels of its level."
            )


def per_level(value: Any, n: int, name: str) -> list:
    """One value for all levels, or a list of one each.

    Raises:
      InputError: a list of another length, or of lists.
    """
    if not isinstance(value, list | tuple):
        return [value] * n
    if len(value) != n or any(isinstance(v, list | tuple) for v in value):
        raise InputError(f"config.json: {name} = {value!r}: expected one number for each level.")
    return list(value)
