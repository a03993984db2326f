"""Inpainting without training: the known part is put in at every level, with RePaint's returns."""

import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import q_sample, transition
from diffjax.errors import InputError
from diffjax.samplers.ancestral import ancestral
from diffjax.types import Array, Sampler, Samples, Schedule


def replacement(schedule: Schedule, sampler: Sampler, known: Samples, mask: Array) -> Sampler:
    """Before every step the known part of x is replaced by the known image, noised to its level.

    Song et al. 2021 (score SDE), appendix I.2; Lugmayr et al. 2022 (RePaint), Eq. 8.

    Args:
      schedule: the noise schedule.
      sampler: of the steps.
      known: the image (B, ...), of any value where the mask is 0.
      mask: of one sample's shape, or one that broadcasts to it, 1 where the image is known.

    Returns:
      A sampler with one more draw, the last, for the known part; after the last step the image
      itself can be put in with `fill`.
    """

    def step(noise, denoise, x, t, s, state):
        x = fill(x, q_sample(schedule, known, t, noise[-1]), mask)
        return sampler.step(noise[:-1], denoise, x, t, s, state)

    return sampler._replace(step=step, draws=sampler.draws + 1, stochastic=True)


def fill(x: Samples, known: Samples, mask: Array) -> Samples:
    """x where the mask is 0, the known image where it is 1.

    Raises:
      InputError: the mask does not fit the images.
    """
    try:
        mask = jnp.broadcast_to(mask, x.shape[1:])[None].astype(x.dtype)
    except ValueError:
        raise InputError(
            f"the mask must fit one image of shape {x.shape[1:]}; got {jnp.shape(mask)}."
        ) from None
    return mask * known + (1 - mask) * x


def repaint(schedule: Schedule, known: Samples, mask: Array, variance: str = "small") -> Sampler:
    """RePaint: ancestral steps down with the known part put in before, and Markov steps back up.

    Lugmayr et al. 2022, Algorithm 1. The first move puts nothing in, as in the released code.

    Args:
      schedule: the noise schedule.
      known: the image (B, ...).
      mask: 1 where the image is known.
      variance: of the ancestral step; see `samplers.ancestral`.

    Returns:
      A sampler for `walk` over the times of `repaint_times`; draws are (step, known part).
    """
    down = ancestral(schedule, variance)

    def step(noise, denoise, x, t, s, started):
        part = fill(x, q_sample(schedule, known, t, noise[1]), mask)
        lower, _ = down.step(noise[:1], denoise, jnp.where(started, part, x), t, s, ())
        scale, variance_up = transition(schedule, s, t)
        higher = scale * x + jnp.sqrt(jnp.maximum(variance_up, 0)) * noise[0]
        return jnp.where(s < t, lower, higher), jnp.asarray(True)

    return Sampler(lambda x, ts: jnp.asarray(False), step, draws=2)


def repaint_times(T: int, jump_length: int = 10, jump_n_sample: int = 10) -> np.ndarray:
    """Steps of RePaint's walk: down to -1, going back up by jumps: Lugmayr et al. 2022, appendix.

    From every multiple of `jump_length` the walk goes up `jump_length` steps and down again,
    `jump_n_sample` - 1 times.

    Args:
      T: steps of the grid; the walk begins at T - 1.
      jump_length: steps of a jump.
      jump_n_sample: passes over each part.

    Returns:
      Steps k, ending in -1 (clean); step k is the k-th time above clean of a grid.

    Raises:
      InputError: a number is below 1.
    """
    if min(T, jump_length, jump_n_sample) < 1:
        raise InputError(
            "repaint_times needs positive T, jump_length and jump_n_sample; got "
            f"{T}, {jump_length} and {jump_n_sample}."
        )
    left = dict.fromkeys(range(0, T - jump_length, jump_length), jump_n_sample - 1)
    t, times = T, []
    while t >= 1:
        t -= 1
        times.append(t)
        if left.get(t, 0) > 0:
            left[t] -= 1
            for _ in range(jump_length):
                t += 1
                times.append(t)
    return np.asarray([*times, -1])
