"""U-ViT's weights, as baofff/U-ViT has them."""

from functools import partial

import numpy as np
from flax import linen as nn

from diffjax.models.transformer import MLP, QKV, SelfAttention
from diffjax.models.uvit import PlainBlock, UViT
from diffjax.parameterization import predict_eps
from diffjax.pretrained.architecture import (
    Architecture,
    denoising,
    image_inputs,
    known_arguments,
    supported,
)
from diffjax.pretrained.dit import patches_names
from diffjax.pretrained.naming import Entry, Layout, Names, same
from diffjax.pretrained.scheduler import own_noise
from diffjax.pretrained.unet_names import conv_names, dense_names, scale_names
from diffjax.schedules import from_betas, scaled_linear_betas, vp_linear
from diffjax.types import Array, Coefficients, Parameterization, Schedule

SHARED = {
    "img_size": 224,
    "patch_size": 16,
    "in_chans": 3,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "mlp_ratio": 4.0,
    "qkv_bias": False,
    "qk_scale": None,
    "mlp_time_embed": False,
    "use_checkpoint": False,
    "conv": True,
    "skip": True,
}
LABELLED = SHARED | {"num_classes": -1}
READING = SHARED | {"clip_dim": 768, "num_clip_token": 77}


def eps_at_999(schedule: Schedule, t: Array) -> Coefficients:
    """eps, by a network that is given 999 t, as score SDEs' networks are."""
    return predict_eps(schedule, t)._replace(c_noise=999 * t)


def latent_noise() -> tuple[Schedule, Parameterization]:
    """That of the networks of latents: Stable Diffusion's betas, times from 1 to 1000."""
    return from_betas(scaled_linear_betas(1000)), predict_eps


def uvit(config: dict) -> Architecture:
    """U-ViT of images (CIFAR-10, CelebA 64, ImageNet 64), by the arguments of its constructor.

    Trained on the linear VP SDE; labels, where it has them, without a null label.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    own_noise(config, "U-ViT")
    c = known_arguments(config, LABELLED, "U-ViT")
    return _labelled(c, max(c["num_classes"], 0), False, vp_linear(), eps_at_999)


def uvit_latent(config: dict) -> Architecture:
    """U-ViT of latents (ImageNet 256 and 512), whose last label is the null label.

    Raises:
      InputError: as for `uvit`.
    """
    own_noise(config, "U-ViT")
    c = known_arguments(config, LABELLED, "U-ViT")
    return _labelled(c, max(c["num_classes"] - 1, 0), True, *latent_noise())


def uvit_text(config: dict) -> Architecture:
    """U-ViT of latents that reads tokens (MS-COCO), by the arguments of its constructor.

    Raises:
      InputError: as for `uvit`.
    """
    own_noise(config, "U-ViT")
    c = known_arguments(config, READING, "U-ViT")
    conditions = {"tokens": ((c["num_clip_token"], c["clip_dim"]), np.float32)}
    names = _names(c, same) | dense_names("context_embed", ("text",))
    return _architecture(c, _module(c), names, conditions, *latent_noise())


def _labelled(c: dict, classes: int, null_label: bool, schedule, parameterization) -> Architecture:
    if not classes:
        names = _names(c, same)
        return _architecture(c, _module(c), names, None, schedule, parameterization)
    # Theirs has the label's token before the time's.
    swapped = lambda w: w[:, [1, 0, *range(2, w.shape[1])]]  # noqa: E731
    names = _names(c, Layout(swapped, swapped))
    names["label_emb.weight"] = Entry(("label", "table", "embedding"))
    module, conditions = _module(c, classes, null_label), {"label": ((), np.int32)}
    return _architecture(c, module, names, conditions, schedule, parameterization)


def _module(c: dict, classes: int = 0, null_label: bool = True) -> UViT:
    supported(c, "U-ViT", mlp_time_embed=(False,), qk_scale=(None,), skip=(True,))
    gelu = partial(nn.gelu, approximate=False)
    return UViT(
        width=c["embed_dim"],
        depth=2 * (c["depth"] // 2) + 1,
        heads=c["num_heads"],
        patch_size=c["patch_size"],
        num_classes=classes,
        null_label=null_label,
        block=partial(
            PlainBlock,
            attention=partial(SelfAttention, qkv=partial(QKV, bias=c["qkv_bias"])),
            mlp=partial(MLP, ratio=float(c["mlp_ratio"]), activation=gelu),
        ),
        conv=c["conv"],
    )


def _names(c: dict, position: Layout) -> Names:
    names = patches_names("patch_embed.proj", c["patch_size"])
    names["pos_embed"] = Entry(("position",), position)
    for i in range(c["depth"] // 2):
        names |= _block(f"in_blocks.{i}.", (f"in_block_{i}",), c["qkv_bias"])
        names |= _block(f"out_blocks.{i}.", (f"out_block_{i}", "block"), c["qkv_bias"])
        names |= dense_names(f"out_blocks.{i}.skip_linear", (f"out_block_{i}", "skip", "out"))
    names |= _block("mid_block.", ("middle",), c["qkv_bias"])
    names |= scale_names("norm", ("norm", "norm")) | dense_names("decoder_pred", ("out",))
    return names | (conv_names("final_layer", ("conv_out",)) if c["conv"] else {})


def _block(theirs: str, ours: tuple[str, ...], qkv_bias: bool) -> Names:
    names = scale_names(f"{theirs}norm1", (*ours, "norm_attention", "norm"))
    names |= dense_names(f"{theirs}attn.qkv", (*ours, "attention", "qkv", "dense"))
    if not qkv_bias:
        del names[f"{theirs}attn.qkv.bias"]
    names |= dense_names(f"{theirs}attn.proj", (*ours, "attention", "out"))
    names |= scale_names(f"{theirs}norm2", (*ours, "norm_mlp", "norm"))
    names |= dense_names(f"{theirs}mlp.fc1", (*ours, "mlp", "layer_in"))
    return names | dense_names(f"{theirs}mlp.fc2", (*ours, "mlp", "layer_out"))


def _architecture(c, module, names, conditions, schedule, parameterization) -> Architecture:
    inputs = image_inputs(c["img_size"], c["in_chans"], conditions)
    null_label = bool(module.num_classes and module.null_label)
    finish = denoising(module, schedule, parameterization, null_label)
    return Architecture(module, inputs, names, finish)
