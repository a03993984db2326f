"""Published weights in and out: `load` and `save_safetensors`."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax.errors import InputError, sentence
from diffjax.pretrained.adm import adm, adm_classifier
from diffjax.pretrained.architecture import Architecture, Loaded, shapes
from diffjax.pretrained.autoencoder import asymmetric_kl, autoencoder_kl, vq_model
from diffjax.pretrained.cascade import stable_cascade_unet
from diffjax.pretrained.controlnet import controlnet
from diffjax.pretrained.diffusers_unet import unet2d, unet2d_condition
from diffjax.pretrained.dit import dit, dit_transformer_2d, transformer_2d
from diffjax.pretrained.edm import edm, edm_ve, edm_vp
from diffjax.pretrained.edm2 import edm2
from diffjax.pretrained.encoders import (
    bert,
    clip_model,
    clip_text,
    clip_vision,
    siglip_vision,
    t5_encoder,
)
from diffjax.pretrained.flux import flux_controlnet, flux_transformer
from diffjax.pretrained.ip_adapter import ip_adapter_plus
from diffjax.pretrained.naming import to_leaves, to_tensors
from diffjax.pretrained.pixart import legacy_pixart, pixart_transformer
from diffjax.pretrained.prior import prior_transformer
from diffjax.pretrained.sana import autoencoder_dc, sana_transformer
from diffjax.pretrained.scheduler import FILE as SCHEDULER_FILE
from diffjax.pretrained.scheduler import KEY as SCHEDULER
from diffjax.pretrained.scheduler import read_scheduler
from diffjax.pretrained.sd3 import sd3_controlnet, sd3_transformer
from diffjax.pretrained.t2i_adapter import t2i_adapter
from diffjax.pretrained.tensors import read_tensors, weight_files
from diffjax.pretrained.tiny_autoencoder import autoencoder_tiny
from diffjax.pretrained.unclip_context import text_projection
from diffjax.pretrained.uvit import uvit, uvit_latent, uvit_text
from diffjax.types import Params


def legacy_transformer(config: dict[str, Any]) -> Architecture:
    """diffusers' Transformer2DModel: PixArt or DiT, by its norm."""
    is_pixart = config.get("norm_type") == "ada_norm_single"
    return legacy_pixart(config) if is_pixart else transformer_2d(config)


ARCHITECTURES: dict[str, Callable[[dict[str, Any]], Architecture]] = {
    "edm": edm,
    "edm_vp": edm_vp,
    "edm_ve": edm_ve,
    "edm2": edm2,
    "dit": dit,
    "DiTTransformer2DModel": dit_transformer_2d,
    "Transformer2DModel": legacy_transformer,
    "SD3Transformer2DModel": sd3_transformer,
    "uvit": uvit,
    "uvit_latent": uvit_latent,
    "uvit_text": uvit_text,
    "UNet2DModel": unet2d,
    "UNet2DConditionModel": unet2d_condition,
    "StableCascadeUNet": stable_cascade_unet,
    "ControlNetModel": controlnet,
    "SD3ControlNetModel": sd3_controlnet,
    "FluxControlNetModel": flux_controlnet,
    "adm": adm,
    "adm_classifier": adm_classifier,
    "AutoencoderKL": autoencoder_kl,
    "AsymmetricAutoencoderKL": asymmetric_kl,
    "VQModel": vq_model,
    "AutoencoderTiny": autoencoder_tiny,
    "AutoencoderDC": autoencoder_dc,
    "SanaTransformer2DModel": sana_transformer,
    "PriorTransformer": prior_transformer,
    "UnCLIPTextProjModel": text_projection,
    "T2IAdapter": t2i_adapter,
    "IPAdapterPlusImageProjection": ip_adapter_plus,
    "FluxTransformer2DModel": flux_transformer,
    "PixArtTransformer2DModel": pixart_transformer,
    "CLIPTextModel": clip_text,
    "CLIPTextModelWithProjection": partial(clip_text, projects=True),
    "CLIPVisionModel": clip_vision,
    "CLIPVisionModelWithProjection": partial(clip_vision, projects=True),
    "CLIPModel": clip_model,
    "T5EncoderModel": t5_encoder,
    "UMT5EncoderModel": partial(t5_encoder, own_bias=True),
    "BertModel": bert,
    "SiglipVisionModel": siglip_vision,
}
"""What config.json may call itself: `architecture`, diffusers' `_class_name`, or the first of
transformers' `architectures`."""

MODEL_TYPES = {
    "clip": "CLIPModel",
    "clip_text_model": "CLIPTextModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "bert": "BertModel",
}
"""The encoder of a transformers model that is more than it, by `model_type`."""

DENOISERS = ("unet", "transformer", "prior")
"""Folders of a pipeline that hold its denoising network."""


class Opened(NamedTuple):
    """A published network whose weights are not read yet.

    Attributes:
      architecture: of its configuration.
      config: of its folder, the scheduler's in it.
      like: our parameters as shapes.
      files: that hold the weights.
    """

    architecture: Architecture
    config: dict[str, Any]
    like: Params
    files: tuple[Path, ...]


def open_network(
    path: str | Path,
    files: Sequence[Path] | None = None,
    config: dict[str, Any] | None = None,
) -> Opened:
    """A published network by its configuration alone.

    Args:
      path: as for `load`.
      files: of its weights, where they are elsewhere.
      config: in place of the folder's config.json.

    Raises:
      InputError: as `load`.
    """
    path = denoiser_folder(Path(path))
    folder = path.parent if path.is_file() else path
    config = read_config(folder) if config is None else dict(config)
    scheduler = read_scheduler(folder)
    if scheduler is not None:
        config[SCHEDULER] = scheduler
    architecture = architecture_of(config)
    with describing(type(architecture.module).__name__):
        like = shapes(architecture)
    if files is None:
        files = weight_files(folder) if path.is_dir() else [path]
    return Opened(architecture, config, like, tuple(files))


Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From tensors by name to others."""


def as_they_are(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors themselves."""
    return tensors


def leaves_of(opened: Opened, change: Change = as_they_are, find: Change = as_they_are) -> Params:
    """The parameters, checked by name and shape, each read where it is asked for.

    Args:
      opened: from `open_network`.
      change: of the tensors by their modern names, such as a LoRA's.
      find: the tensors of this network among those of its files.

    Returns:
      A tree of `naming.Leaf`: `np.asarray` of one is its array.

    Raises:
      InputError: a tensor is missing, too many or misshapen.
    """
    architecture, tensors = opened.architecture, find(read_tensors([*opened.files]))
    tensors = {architecture.modern(name): w for name, w in tensors.items()}
    untrained = architecture.fixed.keys() | architecture.ignored
    trained = {name: w for name, w in tensors.items() if name not in untrained}
    return to_leaves(change(trained), architecture.names, opened.like)


def load(path: str | Path) -> Loaded:
    """Read a published network.

    Args:
      path: a folder with `config.json` (that of diffusers, or {"architecture": "adm" | "edm" |
        "dit" | "uvit" | ..., ... the reference constructor's arguments}) beside its weights, as
        *.safetensors or one .pt, .pth, .bin or .ckpt file of tensors; or one such file beside its
        config.json; or a pipeline of diffusers (a folder with model_index.json), whose denoising
        network is loaded.

    Returns:
      A `Pretrained` that can be sampled, an `Autoencoder`, a `PretrainedClassifier`, an `Encoder`
      of text or pictures, or a `Module` that is a part of another system.

    Raises:
      InputError: the configuration is not one that is known, or a tensor is missing, too many
        or misshapen.
    """
    opened = open_network(path)
    params = jax.tree.map(np.asarray, leaves_of(opened))
    return opened.architecture.finish(params, opened.config)


def save_safetensors(folder: str | Path, model: Loaded) -> None:
    """Write a network as its reference would: config.json and model.safetensors.

    Where the network came with a scheduler's configuration, that too.

    Args:
      folder: made if missing.
      model: from `load`, perhaps with other parameters: `model._replace(params=...)`.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    architecture = architecture_of(model.config)
    tensors = to_tensors(model.params, architecture.names) | architecture.fixed
    save_file(tensors, folder / "model.safetensors")
    config = dict(model.config)
    scheduler = config.pop(SCHEDULER, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if scheduler is not None:
        (folder / SCHEDULER_FILE).write_text(json.dumps(scheduler, indent=2) + "\n")


def denoiser_folder(path: Path) -> Path:
    """The denoising network's folder of a pipeline; any other path as it is.

    Raises:
      InputError: the pipeline has none that is known.
    """
    index = path / "model_index.json"
    if not index.is_file() or (path / "config.json").is_file():
        return path
    parts = [name for name in DENOISERS if (path / name).is_dir()]
    if parts:
        return path / parts[0]
    found = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())) or "none"
    raise InputError(
        f"{path} is a pipeline without one of {', '.join(DENOISERS)}; give one of its parts "
        f"({found}) by its own path."
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
      InputError: there is none, or it is not JSON of one object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"{folder} has no config.json; put it beside the weights: diffusers' own, or "
            '{"architecture": "adm", ...}.'
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {sentence(error)}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected an object of names and values.")
    return config


def architecture_of(config: dict[str, Any]) -> Architecture:
    """The architecture that a configuration describes.

    Raises:
      InputError: it names none that is known.
    """
    name = config.get("architecture") or config.get("_class_name")
    if name is None and isinstance(config.get("architectures"), list):
        name = next(iter(config["architectures"]), None)  # transformers' key
        name = name if name in ARCHITECTURES else MODEL_TYPES.get(str(config.get("model_type")))
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise InputError(
            f"config.json: `architecture` (or `_class_name`) is {name!r}; expected one of "
            f"{', '.join(ARCHITECTURES)}."
        )
    with describing(name):
        return ARCHITECTURES[name](config)


@contextmanager
def describing(name: str):
    """Numbers that describe no network raise anywhere in it: make that a sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"config.json does not describe a {name} that can be built: {sentence(error)}"
        ) from error
