"""Published systems, whole: a folder with model_index.json as a `Model` asked for by prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from diffjax.errors import InputError
from diffjax.models.layers import Dtype
from diffjax.pretrained.adapters import with_controlnets
from diffjax.pretrained.assembling import Opened, System, assemble
from diffjax.pretrained.image_prompt import with_ip_adapter
from diffjax.pretrained.inpainting import painter
from diffjax.pretrained.pipeline import (
    Pipeline,
    check_loras,
    check_parts,
    is_pipeline,
    one_file,
    open_part,
    read_pipeline,
)
from diffjax.pretrained.precision import computing, known
from diffjax.pretrained.prompt_condition import no_reader
from diffjax.pretrained.reading import (
    flux_reader,
    pixart_reader,
    sd3_reader,
    sd_reader,
    sdxl_reader,
)
from diffjax.pretrained.unclip import open_unclip
from diffjax.pretrained.upscaling import upscaler
from diffjax.pretrained.whole_files import is_whole_file

UNET = {"unet": ("UNet2DConditionModel",)}
VAE = {"vae": ("AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL")}
CLIP, CLIP_TOKENS = ("CLIPTextModel",), ("CLIPTokenizer", "CLIPTokenizerFast")
PROJECTED = ("CLIPTextModelWithProjection",)
T5, T5_TOKENS = ("T5EncoderModel",), ("T5Tokenizer", "T5TokenizerFast")
ONE_CLIP = {"text_encoder": CLIP, "tokenizer": CLIP_TOKENS}
SD = UNET | VAE | ONE_CLIP
UPSCALER = SD | {"low_res_scheduler": ("DDPMScheduler", "DDIMScheduler")}
CONTROLNET = {"controlnet": ("ControlNetModel", "MultiControlNetModel")}
SDXL = SD | {"text_encoder_2": PROJECTED, "tokenizer_2": CLIP_TOKENS}
SD3 = {
    "transformer": ("SD3Transformer2DModel",),
    **VAE,
    **{"text_encoder": PROJECTED, "tokenizer": CLIP_TOKENS},
    **{"text_encoder_2": PROJECTED, "tokenizer_2": CLIP_TOKENS},
    **{"text_encoder_3": T5, "tokenizer_3": T5_TOKENS},
}
FLUX = {
    "transformer": ("FluxTransformer2DModel",),
    **VAE,
    **ONE_CLIP,
    **{"text_encoder_2": T5, "tokenizer_2": T5_TOKENS},
}
PIXART = {
    "transformer": ("PixArtTransformer2DModel", "Transformer2DModel"),
    **VAE,
    **{"text_encoder": T5, "tokenizer": T5_TOKENS},
}
UNCLIP = {
    "prior": ("PriorTransformer",),
    "text_proj": ("UnCLIPTextProjModel",),
    "decoder": ("UNet2DConditionModel",),
    "super_res_first": ("UNet2DModel",),
    "super_res_last": ("UNet2DModel",),
    **{"text_encoder": PROJECTED, "tokenizer": CLIP_TOKENS},
}
UNCLIP_SCHEDULERS = ("prior_scheduler", "decoder_scheduler", "super_res_scheduler")


SYSTEMS: dict[str, System] = {
    "StableDiffusionPipeline": System(SD, sd_reader, 7.5),
    "StableDiffusionImg2ImgPipeline": System(SD, sd_reader, 7.5),
    "StableDiffusionInpaintPipeline": System(SD, sd_reader, 7.5, picture=painter),
    "StableDiffusionControlNetPipeline": System(SD | CONTROLNET, sd_reader, 7.5),
    "StableDiffusionUpscalePipeline": System(UPSCALER, sd_reader, 9.0, picture=upscaler),
    "LatentConsistencyModelPipeline": System(SD, sd_reader, 8.5),
    "StableDiffusionXLPipeline": System(SDXL, sdxl_reader, 5.0),
    "StableDiffusionXLImg2ImgPipeline": System(SDXL, sdxl_reader, 5.0),
    "StableDiffusionXLInpaintPipeline": System(SDXL, sdxl_reader, 5.0, picture=painter),
    "StableDiffusionXLControlNetPipeline": System(SDXL | CONTROLNET, sdxl_reader, 5.0),
    "StableDiffusion3Pipeline": System(
        SD3, sd3_reader, 7.0, cell=2, optional=("text_encoder_3", "tokenizer_3")
    ),
    "FluxPipeline": System(FLUX, flux_reader, 3.5, cell=2, latent_size=128),
    "UnCLIPPipeline": System(
        UNCLIP, no_reader, 8.0, schedulers=UNCLIP_SCHEDULERS, build=open_unclip
    ),
    "PixArtAlphaPipeline": System(PIXART, pixart_reader, 4.5, cell=2),
    "PixArtSigmaPipeline": System(PIXART, pixart_reader, 4.5, cell=2),
}
"""Pipelines that are one thing to load, by the `_class_name` of model_index.json."""


def is_system(path: Path) -> bool:
    """Whether a path is a pipeline that reads prompts, or none that is known."""
    if is_whole_file(path):
        return True
    if not is_pipeline(path):
        return False
    pipeline = read_pipeline(path)
    return pipeline.kind in SYSTEMS or any("text_encoder" in name for name in pipeline.classes)


def open_system(
    folder: str | Path,
    height: int | None = None,
    width: int | None = None,
    text_length: int | None = None,
    loras: Sequence[tuple[str | Path, float]] = (),
    controlnet: Sequence[tuple[str | Path, float]] = (),
    ip_adapter: tuple[str | Path, float] | None = None,
    dtype: Dtype = jnp.float32,
) -> Opened:
    """A published system by its configurations; no weight is read.

    Args:
      folder: with model_index.json; or one file of a whole Stable Diffusion 1, 2, 3
        or XL, see `one_file`.
      height: of the images in pixels; None is the size that it was trained on.
      width: likewise.
      text_length: T5's tokens of a prompt; None is the pipeline's own.
      loras: LoRA files and their scales.
      controlnet: folders of ControlNets and their scales; none are the pipeline's own, if it has
        any.
      ip_adapter: file of an IP-Adapter and its scale, see `with_ip_adapter`.
      dtype: of weights and computation, float32 or bfloat16, see `precision`.

    Returns:
      The system.

    Raises:
      InputError: a kind of pipeline, a part or a class that is not known, a part that is
        missing, a size that the system cannot draw, or an adapter for another network.
    """
    dtype = known(dtype)
    pipeline, system = found_system(Path(folder), loras)
    if system.build is not None:
        no_adapters(pipeline, controlnet, ip_adapter)
        return system.build(pipeline, system, (height, width), dtype)
    if not controlnet and "controlnet" in system.parts:
        controlnet = own_controlnets(pipeline)
    adapters = [] if ip_adapter is None else [with_ip_adapter(*ip_adapter, pipeline.folder)]
    adapters += [with_controlnets(controlnet, dtype)] if controlnet else []
    name = "unet" if "unet" in system.parts else "transformer"
    part = computing(open_part(pipeline, name), dtype)
    return assemble(pipeline, system, part, (height, width), text_length, adapters, dtype)


def found_system(
    path: Path, loras: Sequence[tuple[str | Path, float]] = ()
) -> tuple[Pipeline, System]:
    """The pipeline at a path and its kind, its parts looked at. Errors as of `open_system`."""
    whole = path.is_file()
    pipeline = one_file(path) if whole else read_pipeline(path)
    pipeline = pipeline._replace(loras=tuple((Path(file), scale) for file, scale in loras))
    if pipeline.kind not in SYSTEMS:
        raise InputError(
            f"{path} is a {pipeline.kind}, which is not supported; expected one of "
            f"{', '.join(SYSTEMS)}. Its networks may load one by one from Python: "
            "diffjax.pretrained.load(folder)."
        )
    system, has = SYSTEMS[pipeline.kind], pipeline.classes
    if system.build is None and not any(name.startswith("text_encoder") for name in has):
        parts = {n: k for n, k in system.parts.items() if not n.startswith(("text", "token"))}
        system = system._replace(parts=parts, reader=no_reader)
    absent = [name for name in system.optional if name not in has]
    expected = {name: kinds for name, kinds in system.parts.items() if name not in absent}
    if not whole:
        any_kind = {n: (has.get(n, "scheduler of diffusers"),) for n in system.schedulers}
        expected |= any_kind
    check_parts(pipeline, expected)
    check_loras(pipeline)
    return pipeline, system


def no_adapters(pipeline: Pipeline, controlnet: Any, ip_adapter: Any) -> None:
    """Refuse adapters of a system that they are not for.

    Raises:
      InputError: one is given.
    """
    if controlnet or ip_adapter:
        raise InputError(
            f"ControlNets and IP-Adapters are for the U-Nets of Stable Diffusion; "
            f"{pipeline.folder} is a {pipeline.kind}."
        )


def own_controlnets(pipeline: Pipeline) -> list[tuple[Path, float]]:
    """The folders controlnet, controlnet_1, ... of a pipeline, each at the scale 1."""
    several = pipeline.classes["controlnet"] == "MultiControlNetModel"
    more = pipeline.folder.glob("controlnet_[0-9]*") if several else ()
    more = sorted(more, key=lambda folder: (len(folder.name), folder.name))
    return [(folder, 1.0) for folder in (pipeline.folder / "controlnet", *more)]
