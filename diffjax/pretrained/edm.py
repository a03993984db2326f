"""EDM's checkpoints (NVlabs/edm): DDPM++, NCSN++ and ADM under its preconditionings.

config.json is {"architecture": "edm" | "edm_vp" | "edm_ve", ... the arguments of EDMPrecond,
VPPrecond or VEPrecond}; most of its files, "vp" or "ve" in their names or not, are EDMPrecond.
"""

import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from diffjax import schedules
from diffjax.errors import InputError
from diffjax.models.dhariwal import DhariwalUNet
from diffjax.models.edm import SongUNet
from diffjax.models.edm_blocks import Taps
from diffjax.parameterization import edm_preconditioning, predict_eps
from diffjax.pretrained.architecture import (
    Architecture,
    denoising,
    image_inputs,
    known_arguments,
    shapes,
    supported,
)
from diffjax.pretrained.naming import (
    Entry,
    Layout,
    Names,
    Tensors,
    conv,
    conv_1x1,
    dense,
    outputs_reordered,
    same,
)
from diffjax.pretrained.scheduler import own_noise
from diffjax.types import Coefficients, Parameterization, Schedule

NETWORK = {
    "img_resolution": None,
    "img_channels": None,
    "label_dim": 0,
    "use_fp16": False,
}
UNET = {
    "augment_dim": 0,
    "channel_mult_emb": 4,
    "dropout": 0.10,
    "label_dropout": 0,
}
SONG = UNET | {
    "model_channels": 128,
    "channel_mult": [1, 2, 2, 2],
    "num_blocks": 4,
    "attn_resolutions": [16],
    "embedding_type": "positional",
    "channel_mult_noise": 1,
    "encoder_type": "standard",
    "decoder_type": "standard",
    "resample_filter": [1, 1],
}
DHARIWAL = UNET | {
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "num_blocks": 3,
    "attn_resolutions": [32, 16, 8],
}

# --- preconditionings -------------------------------------------------------------------


def edm(config: dict[str, Any]) -> Architecture:
    """EDMPrecond: Karras et al. 2022, Table 1. Its network's time is log(sigma)/4."""
    own = {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5}
    c = arguments(config, own, "EDMPrecond", "DhariwalUNet")
    schedule = schedules.edm(max(float(c["sigma_min"]), 0.002), min(float(c["sigma_max"]), 80.0))
    return _architecture(c, schedule, edm_preconditioning(c["sigma_data"]))


def edm_vp(config: dict[str, Any]) -> Architecture:
    """VPPrecond: DDPM++ that predicts eps; its time is a step of the VP process at sigma."""
    own = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5}
    c = arguments(config, own, "VPPrecond", "SongUNet")
    vp = schedules.vp_linear(c["beta_min"], c["beta_min"] + c["beta_d"])
    sigma = lambda t: float(jnp.exp(-schedules.logsnr(vp, jnp.asarray(t)) / 2))  # noqa: E731

    def parameterization(schedule: Schedule, t) -> Coefficients:
        step = (c["M"] - 1) * vp.t_from_logsnr(schedules.logsnr(schedule, t))
        return predict_eps(schedule, t)._replace(c_noise=step)

    return _architecture(c, schedules.edm(sigma(c["epsilon_t"]), sigma(1.0)), parameterization)


def edm_ve(config: dict[str, Any]) -> Architecture:
    """VEPrecond: NCSN++ that predicts -eps of an unscaled image; its time is log(sigma/2)."""
    own = {"sigma_min": 0.02, "sigma_max": 100}
    c = arguments(config, own, "VEPrecond", "SongUNet")

    def parameterization(schedule: Schedule, t) -> Coefficients:
        one, sigma = schedule.alpha(t), schedule.sigma(t)
        return Coefficients(one, sigma, one, jnp.log(sigma / 2))

    return _architecture(
        c, schedules.edm(float(c["sigma_min"]), float(c["sigma_max"])), parameterization
    )


# --- networks ---------------------------------------------------------------------------


def arguments(config: dict, own: dict, where: str, default: str) -> dict[str, Any]:
    """The arguments of a preconditioning and of the network that it names.

    Args:
      config: of the file.
      own: the preconditioning's own arguments with their defaults.
      where: its name.
      default: name of the network where the file says none.

    Raises:
      InputError: an unknown argument or network, or no size.
    """
    own_noise(config, where)
    kind = config.get("model_type", default)
    supported({"model_type": kind}, where, model_type=("SongUNet", "DhariwalUNet"))
    network = SONG if kind == "SongUNet" else DHARIWAL
    c = known_arguments(config, NETWORK | own | network | {"model_type": kind}, where)
    return c


def taps(c: dict[str, Any]) -> Taps:
    """The filter of resampling.

    Raises:
      InputError: its length is odd.
    """
    if len(c["resample_filter"]) % 2:
        raise InputError(
            f"config.json: resample_filter needs an even length; got {c['resample_filter']}."
        )
    return tuple(c["resample_filter"])


def levels(c: dict[str, Any]) -> tuple[int, ...]:
    """The levels whose resolution is in `attn_resolutions`.

    Raises:
      InputError: the image cannot be halved that often, or its size is not given.
    """
    size, n = c["img_resolution"], len(c["channel_mult"])
    if not size or not c["img_channels"] or size % 2 ** (n - 1):
        raise InputError(
            f"config.json: expected img_channels, and img_resolution as a multiple of "
            f"{2 ** (n - 1)} for {n} levels; got {c['img_channels']} and {size}."
        )
    return tuple(level for level in range(n) if size >> level in c["attn_resolutions"])


def _module(c: dict[str, Any]) -> nn.Module:
    options = {
        "channels": c["model_channels"],
        "multipliers": tuple(c["channel_mult"]),
        "blocks": c["num_blocks"],
        "attention_levels": levels(c),
        "num_classes": c["label_dim"],
        "augment_dim": c["augment_dim"],
        "embedding_multiplier": c["channel_mult_emb"],
        "dropout": float(c["dropout"]),
    }
    if c["model_type"] == "DhariwalUNet":
        return DhariwalUNet(**options)
    supported(
        c,
        "SongUNet",
        embedding_type=("positional", "fourier"),
        encoder_type=("standard", "skip", "residual"),
        decoder_type=("standard", "skip"),
    )
    return SongUNet(
        **options,
        noise_multiplier=c["channel_mult_noise"],
        fourier=c["embedding_type"] == "fourier",
        encoder=c["encoder_type"],
        decoder=c["decoder_type"],
        taps=taps(c),
        stored_frequencies=True,
    )


def _architecture(
    c: dict[str, Any], schedule: Schedule, parameterization: Parameterization
) -> Architecture:
    module = _module(c)
    inputs = inputs_of(c)
    names = table(module, inputs, lambda path: "model." + _name(path, c["img_resolution"]), _layout)
    null_label = bool(c["label_dim"] and c["label_dropout"])
    finish = denoising(module, schedule, parameterization, null_label)
    return Architecture(module, inputs, names, finish, _filters(c))


def inputs_of(c: dict[str, Any]) -> tuple:
    """Shapes of (x, t, cond) for a configuration's network."""
    cond = {"label": ((), np.int32)} if c["label_dim"] else None
    return image_inputs(c["img_resolution"], c["img_channels"], cond)


# --- names ------------------------------------------------------------------------------


def table(
    module: nn.Module,
    inputs: tuple,
    name: Callable[[tuple[str, ...]], str],
    layout: Callable[[tuple[str, ...], tuple[int, ...]], Layout],
) -> Names:
    """The reference's names of all of a module's parameters.

    Args:
      module: whose layers bear the reference's names, up to the spelling.
      inputs: shapes of its arguments.
      name: the path of a leaf -> the reference's name.
      layout: (path, shape) -> how the two differ.
    """
    like = flatten_dict(shapes(Architecture(module, inputs, {}, None)))
    return {name(path): Entry(path, layout(path, leaf.shape)) for path, leaf in like.items()}


def at_resolution(layer: str, size: int) -> str:
    """enc_1_block0 -> enc.16x16_block0 in a network of 32x32 images."""

    def spelled(match):
        side = size >> int(match[2])
        return f"{match[1]}.{side}x{side}_"

    return re.sub(r"^(enc|dec)_(\d+)_", spelled, layer)


def interleaved(channels: int) -> np.ndarray:
    """Order of the reference's query-key-value channels, which change fastest, in ours."""
    return np.arange(3 * channels).reshape(channels, 3).T.ravel()


LEAVES = {"kernel": "weight", "scale": "weight", "frequencies": "freqs"}


def _name(path: tuple[str, ...], size: int) -> str:
    *layers, leaf = path
    return ".".join([at_resolution(layers[0], size), *layers[1:], LEAVES.get(leaf, leaf)])


def _layout(path: tuple[str, ...], shape: tuple[int, ...]) -> Layout:
    layer, leaf = path[-2:]
    layout = same
    if leaf == "kernel" and len(shape) == 4:
        layout = conv
    elif leaf == "kernel":
        layout = dense if layer == "affine" or layer.startswith("map_") else conv_1x1
    return outputs_reordered(layout, interleaved(shape[-1] // 3)) if layer == "qkv" else layout


def _filters(c: dict[str, Any]) -> Tensors:
    """The resampling filters, which the reference keeps in each layer that resamples."""
    row = np.asarray(c.get("resample_filter", [1, 1]), np.float32)
    filter_2d = (np.outer(row, row) / row.sum() ** 2)[None, None]
    halved = range(1, len(c["channel_mult"]))
    layers = [f"enc_{level}_down.{part}" for level in halved for part in ("conv0", "skip")]
    layers += [f"dec_{level - 1}_up.{part}" for level in halved for part in ("conv0", "skip")]
    if c.get("encoder_type", "standard") != "standard":
        end = {"skip": "aux_down", "residual": "aux_residual"}[c["encoder_type"]]
        layers += [f"enc_{level}_{end}" for level in halved]
    if c.get("decoder_type") == "skip":
        layers += [f"dec_{level - 1}_aux_up" for level in halved]
    size = c["img_resolution"]
    return {f"model.{at_resolution(layer, size)}.resample_filter": filter_2d for layer in layers}
