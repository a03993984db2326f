"""Networks that are given a small picture, noised, beside the latents: the x4 upscaler."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.conditioning import Condition
from diffjax.diffusion import q_sample, sample_keys, step_noise
from diffjax.errors import InputError
from diffjax.media.image import load_image
from diffjax.pretrained.beside import joined, own_key
from diffjax.pretrained.pipeline import Part, Pipeline
from diffjax.pretrained.scheduler import betas_of, read_scheduler
from diffjax.pretrained.scheduler_settings import settings_of
from diffjax.schedules import from_betas
from diffjax.types import Array, Network, PyTree, Schedule

SCHEDULER = "low_res_scheduler"
MOST, USUAL = 350, 20


def upscaler(
    pipeline: Pipeline, part: Part, network: Network, latents: tuple[int, int, int]
) -> tuple[Network, tuple[Condition, ...]]:
    """The network of latents under a small picture, and the condition that gives it.

    Args:
      pipeline: with the scheduler of the small picture's noise, `low_res_scheduler`.
      part: the denoiser.
      network: its function.
      latents: (h, w, C); the small picture is (h, w, 3).

    Returns:
      Both.

    Raises:
      InputError: the denoiser reads no picture, or is not told how noisy that is.
    """
    height, width, channels = latents
    levels, takes = part.config.get("num_class_embeds") or 0, part.config.get("in_channels", 4)
    if takes != channels + 3 or not levels:
        raise InputError(
            f"the unet of {pipeline.folder} is of {takes} channels and {levels} noise levels "
            f"(num_class_embeds); an upscaler's takes {channels} of latents and 3 of a picture."
        )
    settings = settings_of(read_scheduler(pipeline.folder / SCHEDULER) or {})
    steps, most = settings["num_train_timesteps"], pipeline.settings.get("max_noise_level", MOST)
    most = min(most, levels - 1, steps - 1)
    schedule = from_betas(betas_of(settings))
    return joined(network, "small"), (small_picture(schedule, steps, most, (height, width)),)


def small_picture(schedule: Schedule, T: int, most: int, size: tuple[int, int]) -> Condition:
    """A small picture and its noise's step, kept under guidance.

    Ho et al. 2022 (CDM), section 4.2: the network is told to which level the picture is noised.

    Args:
      schedule: of the noise, with step k at the time (k + 1)/T.
      T: steps of its table.
      most: largest step.
      size: (h, w) of the picture.

    Returns:
      The condition; its raw arrays are the picture in [-1, 1], standard normal noise, and the step.
    """
    shape = (*size, 3)

    def flags(num: int, image: Path | None = None, noise_level: int = USUAL, seed: int = 0):
        """Flags.

        Args:
          num: number of samples.
          image: small picture that is enlarged.
          noise_level: step of the noise that the small picture is given, from 0.
          seed: of all draws.
        """
        if image is None:
            raise InputError("give --image FILE: this model enlarges a given picture.")
        if not 0 <= noise_level <= most:
            raise InputError(f"--noise-level must be from 0 to {most}; got {noise_level}.")
        small = np.broadcast_to(load_image(image, size, 3), (num, *shape))
        noise = step_noise(sample_keys(own_key(seed), num), 0, 1, jnp.asarray(small))[0]
        level = np.full(num, noise_level, np.int32)
        return {"small": small, "small_noise": np.asarray(noise), "noise_level": level}

    of = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    level = jax.ShapeDtypeStruct((), jnp.int32)
    example = {"small": of(shape), "small_noise": of(shape), "noise_level": level}
    return Condition(example, None, flags, noised(schedule, T))


def noised(schedule: Schedule, T: int) -> Callable:
    """The `encode` of `small_picture`: q_sample at its step, which is the network's label."""

    def encode(frozen: Mapping[str, PyTree], raw: Mapping[str, Any]) -> dict[str, Array]:
        small, noise, level = (jnp.asarray(raw[k]) for k in ("small", "small_noise", "noise_level"))
        return {"small": q_sample(schedule, small, (level + 1) / T, noise), "label": level}

    return encode
