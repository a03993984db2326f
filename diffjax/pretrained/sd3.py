"""Stable Diffusion 3's transformer, as diffusers' SD3Transformer2DModel has it."""

from functools import partial

import numpy as np

from diffjax.models import network as as_network
from diffjax.models.mmdit import JointBlock, MMDiT
from diffjax.models.position import cells, centred_sincos_2d, sincos_2d
from diffjax.models.transformer import QKV, RMSNorm, no_norm
from diffjax.models.transformer_control import transformer_controlnet
from diffjax.pretrained.architecture import (
    Architecture,
    Module,
    denoising,
    image_inputs,
    known_arguments,
    supported,
)
from diffjax.pretrained.dit import patches_names
from diffjax.pretrained.naming import Entry, Names, dense, outputs_reordered, same
from diffjax.pretrained.scheduler import noise_of, straight_line
from diffjax.pretrained.unet_names import dense_names, kernel_names

DEFAULTS = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "num_layers": 18,
    "attention_head_dim": 64,
    "num_attention_heads": 18,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1152,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 96,
    "dual_attention_layers": (),
    "qk_norm": None,
}
CONTROL_DEFAULTS = DEFAULTS | {
    "extra_conditioning_channels": 0,
    "pos_embed_type": "sincos",
    "use_pos_embed": True,
    "force_zeros_for_pooled_projection": True,
}
QK_NORMS = {None: no_norm, "rms_norm": RMSNorm}


def sd3_transformer(config: dict) -> Architecture:
    """diffusers' SD3Transformer2DModel (Stable Diffusion 3 and 3.5), by its config.json.

    Its conditions are tokens (B, L, joint_attention_dim) and a vector (B, pooled_projection_dim).
    The schedule is `rectified_flow()`; the shift of the released scheduler is in the grid of
    `sampling`.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, DEFAULTS, "SD3Transformer2DModel")
    module, conditions, fixed = _module(c, "SD3Transformer2DModel")
    inputs = image_inputs(c["patch_size"], c["in_channels"], conditions)
    finish = denoising(module, *noise_of(config, straight_line))
    return Architecture(module, inputs, _names(c, module.width), finish, fixed)


def sd3_controlnet(config: dict) -> Architecture:
    """diffusers' SD3ControlNetModel, by its config.json.

    Its network takes what the transformer takes, and the condition's latents as cond["image"]; it
    returns the transformer's cond["residuals"].

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here, such as
        that of Stable Diffusion 3.5 large's ControlNets, which read no text.
    """
    where = "SD3ControlNetModel"
    c = known_arguments(config, CONTROL_DEFAULTS, where)
    supported(c, where, pos_embed_type=("sincos",), use_pos_embed=(True,))
    transformer, conditions, fixed = _module(c, where)
    module = transformer_controlnet(transformer, transformer.depth)
    size, channels = c["patch_size"], c["in_channels"] + c["extra_conditioning_channels"]
    conditions["image"] = ((size, size, channels), np.float32)

    def finish(params, config):
        return Module(as_network(module), params, module, config)

    names = _ends(c)
    names |= patches_names("pos_embed_input.proj", size, ("hint",))
    for i in range(module.depth):
        names |= _block(f"transformer_blocks.{i}.", (f"block_{i}",), c["qk_norm"])
        names |= dense_names(f"controlnet_blocks.{i}", (f"zero_{i}",))
    names |= _dual(c, module.depth)
    return Architecture(
        module, image_inputs(size, c["in_channels"], conditions), names, finish, fixed
    )


def _module(c: dict, where: str) -> tuple[MMDiT, dict, dict]:
    """The transformer, its conditions as for `image_inputs`, and its table of positions."""
    width = c["num_attention_heads"] * c["attention_head_dim"]
    supported(
        c | {"dual_attention_layers": tuple(c["dual_attention_layers"])},
        where,
        dual_attention_layers=(tuple(range(len(c["dual_attention_layers"]))),),
        qk_norm=tuple(QK_NORMS),
        caption_projection_dim=(width,),
    )
    side = c["pos_embed_max_size"]
    scale = side / (c["sample_size"] // c["patch_size"])
    module = MMDiT(
        width=width,
        depth=c["num_layers"],
        heads=c["num_attention_heads"],
        patch_size=c["patch_size"],
        out_channels=c["out_channels"] or c["in_channels"],
        vector=True,
        dual=len(c["dual_attention_layers"]),
        block=partial(JointBlock, qkv=partial(QKV, qk_norm=QK_NORMS[c["qk_norm"]])),
        position=partial(centred_sincos_2d, side=side, scale=scale),
    )
    conditions = {
        "tokens": ((1, c["joint_attention_dim"]), np.float32),
        "vector": ((c["pooled_projection_dim"],), np.float32),
    }
    fixed = {"pos_embed.pos_embed": sincos_2d(cells(side, side), width, scale)[None]}
    return module, conditions, fixed


def _ends(c: dict) -> Names:
    """What comes before the blocks."""
    names = patches_names("pos_embed.proj", c["patch_size"])
    names |= dense_names("context_embedder", ("text",))
    for i, layer in ((1, "layer_in"), (2, "layer_out")):
        time, text = (
            f"time_text_embed.{kind}_embedder.linear_{i}" for kind in ("timestep", "text")
        )
        names |= dense_names(time, ("embedding", "time", layer))
        names |= dense_names(text, ("vector", layer))
    return names


def _dual(c: dict, last: int) -> Names:
    """The second attention of the first blocks."""
    names: Names = {}
    for i in range(len(c["dual_attention_layers"])):
        theirs = f"transformer_blocks.{i}.attn2"
        ours = (f"block_{i}" if i < last else "last",)
        for j, layer in enumerate("qkv"):
            names |= dense_names(f"{theirs}.to_{layer}", (*ours, "qkv_alone", "dense"), (j, 3))
        for which in "qk" if c["qk_norm"] else "":
            path = (*ours, "qkv_alone", f"norm_{which}", "norm", "scale")
            names[f"{theirs}.norm_{which}.weight"] = Entry(path)
        names |= dense_names(f"{theirs}.to_out.0", (*ours, "out_alone"))
    return names


def _block(theirs: str, ours: tuple[str, ...], qk_norm: str | None) -> Names:
    """A block after which the text goes on."""
    names = _entering(theirs, ours, qk_norm)
    names |= dense_names(theirs + "norm1_context.linear", (*ours, "text_in", "modulation"))
    names |= _leaving(theirs, "attn.to_out.0", "ff", (*ours, "image_out"))
    return names | _leaving(theirs, "attn.to_add_out", "ff_context", (*ours, "text_out"))


def _names(c: dict, width: int) -> Names:
    names, last = _ends(c), c["num_layers"] - 1
    for i in range(last):
        names |= _block(f"transformer_blocks.{i}.", (f"block_{i}",), c["qk_norm"])
    names |= _dual(c, last)
    theirs = f"transformer_blocks.{last}."
    names |= _entering(theirs, ("last",), c["qk_norm"])
    names |= _scale_first(theirs + "norm1_context.linear", ("last", "text_in"), width)
    names |= _leaving(theirs, "attn.to_out.0", "ff", ("last", "image_out"))
    names |= _scale_first("norm_out.linear", ("final",), width)
    return names | dense_names("proj_out", ("final", "out"))


def _entering(theirs: str, block: tuple[str, ...], qk_norm: str | None) -> Names:
    """Modulation of the image, and queries, keys and values of both streams."""
    names = dense_names(theirs + "norm1.linear", (*block, "image_in", "modulation"))
    streams = {
        "image_in": (("to_q", "to_k", "to_v"), "norm_"),
        "text_in": (("add_q_proj", "add_k_proj", "add_v_proj"), "norm_added_"),
    }
    for stream, (layers, norm) in streams.items():
        qkv = (*block, stream, "qkv")
        for i, layer in enumerate(layers):
            names |= dense_names(f"{theirs}attn.{layer}", (*qkv, "dense"), (i, 3))
        for which in "qk" if qk_norm else "":
            path = (*qkv, f"norm_{which}", "norm", "scale")
            names[f"{theirs}attn.{norm}{which}.weight"] = Entry(path)
    return names


def _leaving(theirs: str, out: str, mlp: str, ours: tuple[str, ...]) -> Names:
    """What follows the attention in one stream."""
    names = dense_names(theirs + out, (*ours, "out"))
    names |= dense_names(f"{theirs}{mlp}.net.0.proj", (*ours, "mlp", "layer_in"))
    return names | dense_names(f"{theirs}{mlp}.net.2", (*ours, "mlp", "layer_out"))


def _scale_first(theirs: str, ours: tuple[str, ...], width: int) -> Names:
    """A modulation whose scale precedes its shift; ours has the shift first."""
    order = np.roll(np.arange(2 * width), width)
    layout, bias = (outputs_reordered(layout, order) for layout in (dense, same))
    return kernel_names(theirs, (*ours, "modulation"), layout, bias=bias)
