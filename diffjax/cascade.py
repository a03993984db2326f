"""Cascades: noise-conditioning augmentation of the small picture that a larger one is drawn from.

A cascade draws p(small), then p(large | small), by two models trained apart. What the first gets
wrong the second was never shown, so that both training and sampling noise the small picture to a
level s that the second model is told (Ho et al. 2022, CDM). A level is a time of a schedule.
"""

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample, sample_keys, step_noise
from diffjax.errors import InputError
from diffjax.types import (
    Array,
    Grid,
    Index,
    LossFn,
    PRNGKeyArray,
    Samples,
    Scalar,
    Schedule,
    Time,
)


def level_name(name: str) -> str:
    """The name under which a network is told the level of the picture `name`."""
    return f"{name}_level"


def check_level(level: float, what: str = "the level of the augmentation") -> None:
    """Refuse a level that is no share of the way from the picture to noise.

    Raises:
      InputError: it is not in [0, 1).
    """
    if not 0 <= level < 1:
        raise InputError(
            f"{what} must be at least 0, the picture as it is, and below 1, noise alone; got "
            f"{level:g}. 0.1 is usual."
        )


def noised_condition(
    loss: LossFn, schedule: Schedule, name: str = "small", most: float = 1.0
) -> LossFn:
    """Train on a small picture that is noised to a random level: Ho et al. 2022, Algorithm 1.

    batch[name] becomes alpha(s) small + sigma(s) eps, with s uniform in [0, most) for each
    sample, and batch[f"{name}_level"] becomes s.

    Args:
      loss: of batches with both entries, for a network that reads both.
      schedule: of the noise, with levels as its times; clean at 0.
      name: of the small picture.
      most: largest level, in (0, 1].

    Returns:
      A `LossFn` with the same context.

    Raises:
      InputError: `most` is outside (0, 1].
    """
    if not 0 < most <= 1:
        raise InputError(f"the largest level in training must be above 0 and at most 1; got {most}")

    def noised_loss(params, key, batch, **context):
        level_key, eps_key, loss_key = jax.random.split(key, 3)
        small = batch[name]
        level = most * jax.random.uniform(level_key, small.shape[:1])
        noisy = q_sample(schedule, small, level, jax.random.normal(eps_key, small.shape))
        return loss(params, loss_key, batch | {name: noisy, level_name(name): level}, **context)

    return noised_loss


def noised(
    key: PRNGKeyArray, schedule: Schedule, small: Samples, level: Time, first: Index = 0
) -> Samples:
    """The small picture that sampling shows the next stage: Ho et al. 2022, non-truncated form.

    alpha(s) small + sigma(s) eps of a picture that was drawn to its end. Where `small` has the
    law of the data this is q(z_s), what the next stage was trained on.

    Args:
      key: consumed whole.
      schedule: of the training's noise.
      small: pictures (B, ...).
      level: s, a scalar or (B,); at 0 nothing changes.
      first: index of the first sample, on which and the key alone its noise depends.

    Returns:
      Pictures (B, ...).
    """
    eps = step_noise(sample_keys(key, small.shape[0], first), 0, 1, small)[0]
    return q_sample(schedule, small, level, eps)


def until(ts: Grid, level: Scalar) -> Array:
    """The part of a grid above a level, and then the level: Ho et al. 2022, truncated form.

    The small picture is drawn on it, so that its draw ends at z_s, which the next stage is shown
    as it is. The schedule of that draw is then the schedule of the training's noise.

    Args:
      ts: n + 1 decreasing times, not traced.
      level: s, below the first time.

    Returns:
      Decreasing times, the last of them the level.

    Raises:
      InputError: the level is not below the first time.
    """
    ts = jnp.asarray(ts)
    if not level < ts[0]:
        raise InputError(f"expected a level below the grid's first time {ts[0]:g}; got {level:g}.")
    return jnp.append(ts[ts > level], jnp.asarray(level, ts.dtype))
