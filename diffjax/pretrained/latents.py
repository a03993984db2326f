"""What a published model's latents are: their scale, their size, and the noise they begin as."""

from typing import Any

import jax.numpy as jnp

from diffjax.diffusion import prior_sample
from diffjax.errors import InputError
from diffjax.latents import LatentScale
from diffjax.pretrained.sampling import SchedulerDefaults
from diffjax.types import Array, PRNGKeyArray, Schedule

DEFAULT_SCALE = 0.18215  # of diffusers' AutoencoderKL and VQModel


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


def shrinking(config: dict[str, Any]) -> int:
    """Pixels of an image for each latent, along one side.

    Args:
      config: of an autoencoder whose levels halve.
    """
    widths = config.get("block_out_channels") or config.get("encoder_block_out_channels") or (1,)
    return 2 ** (len(widths) - 1)


def prior_of(usual: SchedulerDefaults):
    """The `prior` of a model whose first noise has the standard deviation of its scheduler."""

    def prior(key: PRNGKeyArray, schedule: Schedule, shape: tuple, first: Any, t: Array) -> Array:
        ratio = usual.start_std(schedule, t) / schedule.sigma(t)
        return ratio * prior_sample(key, schedule, shape, first, t)

    return prior
