"""A published network as a `Model`, and a published autoencoder as its codec."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from diffjax import conditioning
from diffjax.diffusion import prior_sample
from diffjax.errors import InputError
from diffjax.experiment import Model, Sampling, classifier_free
from diffjax.latents import LatentScale
from diffjax.media import decoded
from diffjax.parameterization import make_denoiser
from diffjax.pretrained import Autoencoder, Pretrained, load
from diffjax.pretrained.load import architecture_of
from diffjax.types import Params

SIZES = ("sample_size", "image_size", "img_resolution", "input_size", "img_size")
CHANNELS = ("in_channels", "img_channels", "in_chans")
DEFAULT_SCALE = 0.18215  # of diffusers' AutoencoderKL and VQModel


def published(path: str | Path) -> tuple[Model, Params]:
    """A network of `pretrained.load` that draws images, and its parameters.

    Guidance is classifier-free where the network knows a null label.

    Args:
      path: as for `pretrained.load`.

    Returns:
      The model and its parameters.

    Raises:
      InputError: it is no denoiser, it needs tokens, or its config does not say its image size.
    """
    found = load(path)
    if not isinstance(found, Pretrained):
        raise InputError(f"{path} does not draw images; expected a denoising network.")
    if "tokens" in (architecture_of(found.config).inputs[2] or {}):
        raise InputError(
            f"{path} needs the tokens of a text encoder; call it from Python: "
            "diffjax.pretrained.load(path)."
        )
    classes = getattr(found.module, "num_classes", 0)
    null, usual = classes and found.null_label, found.sampling
    label = conditioning.label(classes)

    def denoiser(params):
        return make_denoiser(found.network, params, found.schedule, found.parameterization)

    def prior(key, schedule, shape, first, t):
        ratio = usual.start_std(schedule, t) / schedule.sigma(t)
        return ratio * prior_sample(key, schedule, shape, first, t)

    model = Model(
        init=lambda key: found.params,
        denoiser=denoiser,
        example=jax.ShapeDtypeStruct(sample_shape(found.config), jnp.float32),
        schedule=found.schedule,
        conditions=(label if null else label._replace(null=None),) if classes else (),
        guide=classifier_free if null else None,
        finish=usual.finish,
        prior=prior,
        sampling=Sampling(usual.sampler, usual.grid, usual.steps, options=usual.options),
    )
    return model, found.params


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
    found = load(path)
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

    frozen = {**model.frozen, "autoencoder": lambda: found.params}
    return model._replace(codec=decoded(model.codec.encode, decode), frozen=frozen)


def decoder(autoencoder: Path | None = None) -> Callable[[Model], Model]:
    """A model of latents -> the same with a decoder, if one is given.

    Args:
      autoencoder: published folder whose decoder turns samples into images.
    """
    return lambda model: with_decoder(model, autoencoder) if autoencoder else model


def latent_scale(config: dict) -> LatentScale:
    """The scale that an autoencoder's configuration says, of all channels or one for each.

    With `latents_mean` and `latents_std` a diffusion model sees
    (z - mean) scaling_factor / std, as in diffusers.

    Args:
      config: of the autoencoder.

    Raises:
      InputError: only one of the two is there, or they are not as many numbers as channels.
    """
    factor, shift = config.get("scaling_factor"), config.get("shift_factor") or 0.0
    factor = DEFAULT_SCALE if factor is None else factor
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None and std is None:
        return LatentScale(factor, shift)
    try:
        mean, std = jnp.asarray(mean, float), jnp.asarray(std, float)
    except (TypeError, ValueError) as error:
        raise InputError(
            "config.json: expected latents_mean and latents_std, or neither."
        ) from error
    if mean.ndim != 1 or mean.shape != std.shape or not bool(jnp.all(std > 0)):
        raise InputError(
            "config.json: expected latents_mean and latents_std to be one number for each channel, "
            f"the latter above 0; got shapes {mean.shape} and {std.shape}."
        )
    return LatentScale(factor / std, mean)
