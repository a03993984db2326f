"""A published network as a `Model`, and a published autoencoder as its codec."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import conditioning
from diffjax.errors import InputError
from diffjax.experiment import Model, Sampling, classifier_free
from diffjax.media import decoded
from diffjax.models.layers import Dtype
from diffjax.parameterization import make_denoiser
from diffjax.pretrained import Autoencoder, Pretrained
from diffjax.pretrained.hub import local_folder
from diffjax.pretrained.latents import latent_scale, prior_of
from diffjax.pretrained.load import leaves_of, open_network
from diffjax.pretrained.precision import known
from diffjax.pretrained.systems import is_system, open_system
from diffjax.types import Params

SIZES = ("sample_size", "image_size", "img_resolution", "input_size", "img_size")
CHANNELS = ("in_channels", "img_channels", "in_chans")


def published(
    path: str | Path, height: int | None = None, width: int | None = None
) -> tuple[Model, Params]:
    """`open_published` with its parameters read. Arguments and errors are the same."""
    model, leaves = open_published(path, height, width)
    return model, jax.tree.map(np.asarray, leaves)


def open_published(
    path: str | Path,
    height: int | None = None,
    width: int | None = None,
    loras: Sequence[tuple[str | Path, float]] = (),
    controlnet: Sequence[tuple[str | Path, float]] = (),
    ip_adapter: tuple[str | Path, float] | None = None,
    dtype: Dtype = jnp.float32,
) -> tuple[Model, Params]:
    """A network of `pretrained.load` that draws images, or a whole system, and its parameters.

    Args:
      path: as for `pretrained.load`, a folder with model_index.json, one file of a
        whole Stable Diffusion, or owner/name of a repository (see `hub`).
      height: of the images; None is that of the folder's own.
      width: likewise.
      loras: LoRA files and their scales, of a system.
      controlnet: folders of ControlNets and their scales, of a system.
      ip_adapter: file of an IP-Adapter and its scale, of a system.
      dtype: of a system's weights and computation, float32 or bfloat16.

    Returns:
      The model and the denoiser's parameters, a tree of `naming.Leaf`s: none is read before
      `np.asarray` of it.

    Raises:
      InputError: it is no denoiser, it needs tokens, its config does not say its image size, or
        it is a system that is not supported.
    """
    path = local_folder(path)
    if is_system(path):
        adapters = {"loras": loras, "controlnet": controlnet, "ip_adapter": ip_adapter}
        adapters["dtype"] = dtype
        system = open_system(path, height, width, **adapters)
        return system.model, system.leaves()
    if loras or controlnet or ip_adapter or known(dtype) != jnp.float32:
        raise InputError(
            f"{path} is no system with model_index.json, which LoRA files, adapters and bfloat16 "
            "are for."
        )
    return published_network(path, height, width)


def published_network(
    path: str | Path, height: int | None = None, width: int | None = None
) -> tuple[Model, Params]:
    """A network that draws images on its own. Arguments and result as for `open_published`.

    Guidance is classifier-free where the network knows a null label.
    """
    opened = open_network(path)
    found = opened.architecture.finish({}, opened.config)
    if not isinstance(found, Pretrained):
        raise InputError(f"{path} does not draw images; expected a denoising network.")
    if "tokens" in (opened.architecture.inputs[2] or {}):
        raise InputError(
            f"{path} needs the tokens of a text encoder; give the folder of the whole pipeline, "
            "with its model_index.json."
        )
    leaves = leaves_of(opened)
    shape = sample_shape(found.config)
    if height or width:
        shape = (height or shape[0], width or shape[1], shape[2])
    classes = getattr(found.module, "num_classes", 0)
    null, usual = classes and found.null_label, found.sampling
    label = conditioning.label(classes)

    def denoiser(params):
        return make_denoiser(found.network, params, found.schedule, found.parameterization)

    model = Model(
        init=lambda key: jax.tree.map(np.asarray, leaves),
        denoiser=denoiser,
        example=jax.ShapeDtypeStruct(shape, jnp.float32),
        schedule=found.schedule,
        conditions=(label if null else label._replace(null=None),) if classes else (),
        guide=classifier_free if null else None,
        finish=usual.finish,
        prior=prior_of(usual),
        sampling=Sampling(usual.sampler, usual.grid, usual.steps, options=usual.options),
    )
    return model, leaves


def sample_shape(config: dict) -> tuple[int, int, int]:
    """(H, W, C) of a network's samples, from its config.json.

    Raises:
      InputError: it does not say.
    """
    size = next((config[name] for name in SIZES if config.get(name)), None)
    if size is None:
        raise InputError(f"config.json: expected the images' size, as one of {', '.join(SIZES)}.")
    channels = next((config[name] for name in CHANNELS if name in config), 3)
    height, width = (size, size) if isinstance(size, int) else size
    return height, width, channels


def with_decoder(model: Model, path: str | Path) -> Model:
    """A model of latents with a published autoencoder, which turns samples into images.

    Args:
      model: trained on latents, scaled for diffusion; its data are such latents.
      path: as for `pretrained.load`.

    Returns:
      The model with the decoder as its codec, and the autoencoder's parameters in `frozen`.

    Raises:
      InputError: it is no autoencoder, or one of latents of another number of channels.
    """
    opened = open_network(path)
    found, leaves = opened.architecture.finish({}, opened.config), leaves_of(opened)
    if not isinstance(found, Autoencoder):
        raise InputError(f"{path} is not an autoencoder; give one such as AutoencoderKL.")
    channels, own = model.example.shape[-1], found.config.get("latent_channels")
    if own is not None and own != channels:
        raise InputError(
            f"the autoencoder of {path} has latents of {own} channels; the model draws {channels}."
        )
    scale = latent_scale(found.config)

    def decode(frozen, x):
        return found.decode(frozen["autoencoder"], scale.to_autoencoder(x))

    frozen = {**model.frozen, "autoencoder": lambda: jax.tree.map(np.asarray, leaves)}
    return model._replace(codec=decoded(model.codec.encode, decode), frozen=frozen)


def decoder(autoencoder: Path | None = None) -> Callable[[Model], Model]:
    """A model of latents -> the same with a decoder, if one is given.

    Args:
      autoencoder: published folder whose decoder turns samples into images.
    """
    return lambda model: with_decoder(model, autoencoder) if autoencoder else model
