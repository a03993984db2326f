"""DiT's weights: facebookresearch's own, and diffusers' form of them."""

from functools import partial

import numpy as np
from flax import linen as nn

from diffjax.models.dit import DiT, DiTBlock
from diffjax.models.per_block_dit import PerBlockDiT
from diffjax.models.position import cells, sincos_2d
from diffjax.models.transformer import MLP, QKV, LayerNorm, SelfAttention
from diffjax.pretrained.architecture import (
    Architecture,
    denoising,
    image_inputs,
    known_arguments,
    supported,
)
from diffjax.pretrained.naming import Entry, Layout, Names, conv, dense
from diffjax.pretrained.scheduler import noise_of

REFERENCE = {
    "input_size": 32,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 1152,
    "depth": 28,
    "num_heads": 16,
    "mlp_ratio": 4.0,
    "class_dropout_prob": 0.1,
    "num_classes": 1000,
    "learn_sigma": True,
}
DIFFUSERS = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": None,
    "num_layers": 28,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "attention_bias": True,
    "sample_size": 32,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "upcast_attention": False,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-5,
}
LEGACY = DIFFUSERS | {
    "attention_head_dim": 88,
    "in_channels": None,
    "num_layers": 1,
    "cross_attention_dim": None,
    "attention_bias": False,
    "sample_size": None,
    "num_vector_embeds": None,
    "patch_size": None,
    "activation_fn": "geglu",
    "num_embeds_ada_norm": None,
    "use_linear_projection": False,
    "only_cross_attention": False,
    "double_self_attention": False,
    "norm_type": "layer_norm",
    "norm_elementwise_affine": True,
    "attention_type": "default",
    "caption_channels": None,
    "interpolation_scale": None,
    "use_additional_conditions": None,
}
ACTIVATIONS = {
    "gelu-approximate": partial(nn.gelu, approximate=True),
    "gelu": partial(nn.gelu, approximate=False),
}


def dit(config: dict) -> Architecture:
    """facebookresearch's DiT, by the arguments of its constructor.

    Raises:
      InputError: an argument that it does not have.
    """
    c = known_arguments(config, REFERENCE, "DiT")
    module = DiT(
        width=c["hidden_size"],
        depth=c["depth"],
        heads=c["num_heads"],
        patch_size=c["patch_size"],
        num_classes=c["num_classes"],
        null_label=c["class_dropout_prob"] > 0,
        learn_sigma=c["learn_sigma"],
        block=partial(DiTBlock, mlp=partial(MLP, ratio=float(c["mlp_ratio"]))),
    )
    names = patches_names("x_embedder.proj", c["patch_size"])
    names |= _embedding("t_embedder.mlp.0", "t_embedder.mlp.2", "y_embedder", ("embedding",))
    for i in range(c["depth"]):
        ours, theirs = f"block_{i}", f"blocks.{i}."
        names |= _dense(theirs + "attn.qkv", ours, "attention", "qkv", "dense")
        names |= _dense(theirs + "attn.proj", ours, "attention", "out")
        names |= _dense(theirs + "mlp.fc1", ours, "mlp", "layer_in")
        names |= _dense(theirs + "mlp.fc2", ours, "mlp", "layer_out")
        names |= _dense(theirs + "adaLN_modulation.1", ours, "modulation")
    names |= _dense("final_layer.adaLN_modulation.1", "final", "modulation")
    names |= _dense("final_layer.linear", "final", "out")
    side = c["input_size"] // c["patch_size"]
    fixed = {"pos_embed": sincos_2d(cells(side, side), c["hidden_size"])[None]}
    noise = (*noise_of(config), module.null_label)
    return _architecture(module, c["input_size"], c["in_channels"], names, noise, fixed)


def dit_transformer_2d(config: dict) -> Architecture:
    """diffusers' DiTTransformer2DModel, by its config.json.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, DIFFUSERS, "DiTTransformer2DModel")
    return _diffusers(config, c, 1.0)


def transformer_2d(config: dict) -> Architecture:
    """diffusers' Transformer2DModel of patches under adaLN-zero: DiT before it had its own class.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, LEGACY, "Transformer2DModel")
    supported(
        c,
        "Transformer2DModel",
        attention_type=("default",),
        caption_channels=(None,),
        cross_attention_dim=(None,),
        double_self_attention=(False,),
        num_vector_embeds=(None,),
    )
    scale = float(c["interpolation_scale"] or max((c["sample_size"] or 0) // 64, 1))
    return _diffusers(config, c, scale)


def _diffusers(config: dict, c: dict, position_scale: float) -> Architecture:
    supported(
        c,
        "a DiT",
        activation_fn=tuple(ACTIVATIONS),
        dropout=(0.0,),
        norm_type=("ada_norm_zero",),
    )
    affine, bias = c["norm_elementwise_affine"], c["attention_bias"]
    block = partial(
        DiTBlock,
        attention=partial(SelfAttention, qkv=partial(QKV, bias=bias)),
        mlp=partial(MLP, activation=ACTIVATIONS[c["activation_fn"]]),
        mlp_norm=partial(LayerNorm, affine=affine, epsilon=float(c["norm_eps"])),
    )
    module = PerBlockDiT(
        width=c["num_attention_heads"] * c["attention_head_dim"],
        depth=c["num_layers"],
        heads=c["num_attention_heads"],
        patch_size=c["patch_size"],
        num_classes=c["num_embeds_ada_norm"],
        out_channels=c["out_channels"] or c["in_channels"],
        block=block,
        position=partial(sincos_2d, scale=position_scale),
    )
    names = patches_names("pos_embed.proj", c["patch_size"])
    for i in range(c["num_layers"]):
        names |= _diffusers_block(f"transformer_blocks.{i}.", f"block_{i}", affine, bias)
    names |= _dense("proj_out_1", "final", "modulation")
    names |= _dense("proj_out_2", "final", "out")
    noise = (*noise_of(config), True)
    return _architecture(module, c["sample_size"], c["in_channels"], names, noise)


def _diffusers_block(theirs: str, ours: str, affine: bool, bias: bool) -> Names:
    embed, block = theirs + "norm1.emb.", (ours, "block")
    times = (embed + f"timestep_embedder.linear_{i}" for i in (1, 2))
    names = _embedding(*times, embed + "class_embedder", (ours, "embedding"))
    for i, name in enumerate(("to_q", "to_k", "to_v")):
        path = (*block, "attention", "qkv", "dense")
        parts = _dense(theirs + "attn1." + name, *path, bias=bias)
        names |= {key: entry._replace(piece=(i, 3)) for key, entry in parts.items()}
    names |= _dense(theirs + "attn1.to_out.0", *block, "attention", "out")
    names |= _dense(theirs + "ff.net.0.proj", *block, "mlp", "layer_in")
    names |= _dense(theirs + "ff.net.2", *block, "mlp", "layer_out")
    names |= _dense(theirs + "norm1.linear", *block, "modulation")
    if affine:
        names[theirs + "norm3.weight"] = Entry((*block, "norm_mlp", "norm", "scale"))
        names[theirs + "norm3.bias"] = Entry((*block, "norm_mlp", "norm", "bias"))
    return names


def _architecture(module: nn.Module, size: int, channels: int, names: Names, noise, fixed=None):
    """`noise` is (schedule, parameterization, whether there is a null label)."""
    inputs = image_inputs(size, channels, {"label": ((), np.int32)})
    return Architecture(module, inputs, names, denoising(module, *noise), fixed or {})


def _dense(theirs: str, *ours: str, bias: bool = True) -> Names:
    names = {f"{theirs}.weight": Entry((*ours, "kernel"), dense)}
    return names | ({f"{theirs}.bias": Entry((*ours, "bias"))} if bias else {})


def _embedding(time_in: str, time_out: str, label: str, ours: tuple[str, ...]) -> Names:
    table = Entry((*ours, "label", "table", "embedding"))
    return {
        **_dense(time_in, *ours, "time", "layer_in"),
        **_dense(time_out, *ours, "time", "layer_out"),
        f"{label}.embedding_table.weight": table,
    }


def patches_names(theirs: str, size: int, ours: tuple[str, ...] = ("patches",)) -> Names:
    """A convolution (D, C, size, size) that does not overlap <-> a dense layer (size^2 C, D)."""
    layout = Layout(
        lambda w: conv.read(w).reshape(-1, w.shape[0]),
        lambda w: conv.write(w.reshape(size, size, -1, w.shape[-1])),
    )
    return {
        f"{theirs}.weight": Entry((*ours, "kernel"), layout),
        f"{theirs}.bias": Entry((*ours, "bias")),
    }
