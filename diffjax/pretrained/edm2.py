"""EDM2's checkpoints (NVlabs/edm2), with their estimate of the loss per noise level.

config.json is {"architecture": "edm2", ... the arguments of Precond}.
"""

from typing import Any

from diffjax import schedules
from diffjax.models.edm2 import EDM2UNet
from diffjax.parameterization import edm_preconditioning
from diffjax.pretrained.architecture import Architecture, denoising, known_arguments
from diffjax.pretrained.edm import (
    LEAVES,
    at_resolution,
    inputs_of,
    interleaved,
    levels,
    table,
    taps,
)
from diffjax.pretrained.naming import Layout, conv, conv_1x1, dense, outputs_reordered, same
from diffjax.pretrained.scheduler import own_noise

ARGUMENTS = {
    "img_resolution": None,
    "img_channels": None,
    "label_dim": 0,
    "use_fp16": True,
    "sigma_data": 0.5,
    "logvar_channels": 128,
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "channel_mult_noise": None,
    "channel_mult_emb": None,
    "num_blocks": 3,
    "attn_resolutions": [16, 8],
    "label_balance": 0.5,
    "concat_balance": 0.5,
    "resample_filter": [1, 1],
    "channels_per_head": 64,
    "dropout": 0,
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256,
}


def edm2(config: dict[str, Any]) -> Architecture:
    """EDM2's Precond: Karras et al. 2024. Its network's time is log(sigma)/4.

    Its logvar is `module.apply({"params": params}, log(sigma)/4, method="uncertainty")`.
    """
    own_noise(config, "Precond")
    c = known_arguments(config, ARGUMENTS, "Precond")
    times = lambda name: c[name] and c[name] * c["model_channels"]  # noqa: E731
    module = EDM2UNet(
        channels=c["model_channels"],
        multipliers=tuple(c["channel_mult"]),
        blocks=c["num_blocks"],
        attention_levels=levels(c),
        num_classes=c["label_dim"],
        noise_channels=times("channel_mult_noise"),
        embedding_channels=times("channel_mult_emb"),
        head_channels=c["channels_per_head"],
        label_balance=float(c["label_balance"]),
        concat_balance=float(c["concat_balance"]),
        residual_balance=float(c["res_balance"]),
        attention_balance=float(c["attn_balance"]),
        clip=None if c["clip_act"] is None else float(c["clip_act"]),
        taps=taps(c),
        dropout=float(c["dropout"]),
        logvar_channels=c["logvar_channels"],
        stored_frequencies=True,
    )
    inputs = inputs_of(c)
    names = table(module, inputs, lambda path: _name(path, c["img_resolution"]), _layout)
    finish = denoising(module, schedules.edm(), edm_preconditioning(c["sigma_data"]))
    return Architecture(module, inputs, names, finish)


def _name(path: tuple[str, ...], size: int) -> str:
    *layers, leaf = path
    leaf = LEAVES.get(leaf, leaf)
    if layers and layers[0] == "logvar":
        return f"logvar_{layers[1]}.{leaf}"
    if layers:
        layers[0] = at_resolution(layers[0], size)
    return ".".join(["unet", *layers, leaf])


def _layout(path: tuple[str, ...], shape: tuple[int, ...]) -> Layout:
    if path[-1] != "weight":
        return same
    layer = path[-2]
    if len(shape) == 4:
        return conv
    if layer == "attn_qkv":
        return outputs_reordered(conv_1x1, interleaved(shape[-1] // 3))
    return conv_1x1 if layer in ("conv_skip", "attn_proj") else dense
