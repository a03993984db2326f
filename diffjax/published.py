"""A published network as what sample.py draws from, in place of an experiment."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from diffjax import grids, guidance, samplers
from diffjax.config import Published, Sampling
from diffjax.errors import InputError
from diffjax.latents import LatentScale
from diffjax.parameterization import make_denoiser
from diffjax.pretrained import Autoencoder, Pretrained, load
from diffjax.pretrained.load import architecture_of
from diffjax.types import Array, Params

SIZES = ("sample_size", "image_size", "img_resolution", "input_size", "img_size")
CHANNELS = ("in_channels", "img_channels", "in_chans")
DEFAULT_SCALE = 0.18215  # of diffusers' AutoencoderKL and VQModel


def published(path: str | Path) -> tuple[Published, Params]:
    """A network of `pretrained.load` that draws images, and its parameters.

    Guidance is classifier-free where the network knows a null label.

    Args:
      path: as for `pretrained.load`.

    Raises:
      InputError: it is no denoiser, it needs tokens, or its config does not say its image size.
    """
    model = load(path)
    if not isinstance(model, Pretrained):
        raise InputError(f"{path} does not draw images; expected a denoising network.")
    if "tokens" in (architecture_of(model.config).inputs[2] or {}):
        raise InputError(
            f"{path} needs the tokens of a text encoder; call it from Python: "
            "diffjax.pretrained.load(path)."
        )
    classes = getattr(model.module, "num_classes", 0)

    def guide(denoiser, scale):
        return guidance.classifier_free(denoiser, scale, {"label": classes})

    def denoiser(params):
        raw = make_denoiser(model.network, params, model.schedule, model.parameterization)
        return model.sampling.finish(raw)

    shape, guided = sample_shape(model.config), guide if model.null_label and classes else None
    usual = Sampling(samplers.dpmpp_2m, grids.karras, 25)
    found = Published(denoiser, model.schedule, shape, usual, classes, guided)
    return found, model.params


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


def decoder(path: str | Path) -> Callable[[Array], Array]:
    """The function from a diffusion model's latents to images, of a published autoencoder.

    Args:
      path: as for `pretrained.load`.

    Returns:
      (B, h, w, c) -> (B, H, W, C), jitted.

    Raises:
      InputError: it is no autoencoder.
    """
    model = load(path)
    if not isinstance(model, Autoencoder):
        raise InputError(f"{path} is not an autoencoder; give one such as AutoencoderKL.")
    scale = latent_scale(model.config)
    decode = jax.jit(lambda params, z: model.decode(params, scale.to_autoencoder(z)))
    return lambda z: decode(model.params, z)


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
