"""Draws of the tilted law, where guidance alone misses it: `sample.py --corrected`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffjax import guidance
from diffjax.conditioning import Raw
from diffjax.errors import InputError
from diffjax.experiment import Model
from diffjax.run.draw import Loop
from diffjax.types import Scalar, Schedule


class Tilt(NamedTuple):
    """What `guidance.corrected` takes beside the particles.

    Attributes:
      schedule: the noise schedule.
      scale: w of p(x0 | c)^w p(x0)^(1-w).
    """

    schedule: Schedule
    scale: Scalar


def corrected(schedule: Schedule, scale: Scalar = 1.0) -> Tilt:
    """In place of a sampler's constructor: the scale is an argument of the compiled draw."""
    return Tilt(schedule, scale)


def _run(key, both, tilt, x, ts, cond, first):
    drawn = guidance.corrected(key, tilt.schedule, both, tilt.scale, x, ts, cond, first=first)
    return drawn.x, jnp.min(drawn.effective)


particles = Loop(_run, "particles at the smallest effective sample size")
"""In place of the loop of a sampler; one batch is one set of particles."""


def of_pairs(model: Model) -> Model:
    """A model whose guide gives both predictions, each finished, and which writes no frames."""

    def both(denoiser, scale, null, frozen):
        return guidance.pair(model.finish(denoiser), null)

    still = {s: w for s, w in model.codec.writers.items() if not w.frames}
    codec = model.codec._replace(writers=still)
    return model._replace(guide=both, finish=lambda denoiser: denoiser, codec=codec)


def check(model: Model, raw: Raw, asked: Mapping[str, Any]) -> None:
    """Refuse a draw whose tilted law is not one.

    Args:
      model: any.
      raw: the raw conditions of all samples.
      asked: values of the flags.

    Raises:
      InputError: there is no guidance, or the samples do not have one condition.
    """
    if model.guide is None or asked["guidance_scale"] == 1:
        raise InputError(
            "--corrected draws what guidance aims at: give a --guidance-scale other than 1, of a "
            "model that has guidance."
        )
    if any((np.asarray(a) != np.asarray(a)[:1]).any() for a in raw.values()):
        raise InputError(
            "--corrected weighs particles of one condition against each other; give all samples "
            "the same, such as --label 3."
        )
