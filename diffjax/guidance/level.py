"""Guidance that depends on the noise level."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.errors import InputError
from diffjax.schedules import logsnr
from diffjax.types import Array, Denoiser, Sampler, Scalar, Schedule, Time, per_sample


def interval(
    guided: Denoiser,
    denoiser: Denoiser,
    schedule: Schedule,
    low: Scalar,
    high: Scalar,
) -> Denoiser:
    """Guidance where low < sigma/alpha <= high alone: Kynkäänniemi et al. 2024, Eq. 6.

    At a time outside, where it is one for the whole batch, `guided` is not computed.

    Args:
      guided: the guided denoiser, by any rule.
      denoiser: the conditional one.
      schedule: the noise schedule.
      low: noise level sigma/alpha below which guidance is off, at least 0.
      high: noise level above which it is off; infinity is none.

    Returns:
      The denoiser.

    Raises:
      InputError: low is not below high.
    """
    known = not isinstance(low, jax.core.Tracer) and not isinstance(high, jax.core.Tracer)
    if known and not 0 <= low < high:
        raise InputError(f"interval needs noise levels 0 <= low < high; got {low} and {high}.")

    def switched(x, t, cond):
        t = jnp.asarray(t, jnp.promote_types(x.dtype, jnp.float32))
        level = jnp.exp(-logsnr(schedule, t) / 2)
        on = (level > low) & (level <= high)
        out = jax.lax.cond(jnp.any(on), guided, denoiser, x, t, cond)
        if on.ndim == 0:
            return out
        plain = denoiser(x, t, cond)
        return out._replace(x0=jnp.where(per_sample(on, x), out.x0, plain.x0))

    return switched


def interval_of_steps(
    sampler: Sampler, scale: Time, schedule: Schedule, low: Scalar, high: Scalar
) -> Sampler:
    """Any sampler guided in the whole steps that begin at low < sigma/alpha <= high.

    A step of several calls is guided in all of them or in none, as in the released code of
    Kynkäänniemi et al. 2024, where `interval` looks at the level of each call. Both predictions
    are computed throughout.

    Args:
      sampler: of `diffjax.samplers`.
      scale: of the guidance, a scalar or one per sample; may be a traced value.
      schedule: the noise schedule.
      low: noise level sigma/alpha below which a step is not guided.
      high: noise level above which it is not.

    Returns:
      A sampler of `pair(denoiser, null)`, in place of the denoiser.
    """

    def step(noise, denoise, x, t, s, state):
        level = jnp.exp(-logsnr(schedule, t) / 2)
        own = jnp.where((level > low) & (level <= high), scale, 1)

        def guided(x, t):
            both = denoise(x, t)
            cond, uncond = both.x0
            return both._replace(x0=uncond + per_sample(own, x) * (cond - uncond))

        return sampler.step(noise, guided, x, t, s, state)

    return sampler._replace(step=step)


def scheduled(
    guide: Callable[[Array], Denoiser], schedule: Schedule, scale: Callable[[Array], Array]
) -> Denoiser:
    """Any guidance under a scale that depends on the noise level.

    Args:
      guide: scale -> guided denoiser, such as
        `lambda scale: classifier_free(denoiser, scale, null)`.
      schedule: the noise schedule.
      scale: logsnr -> scale, of the shape of t: a scalar or (B,).

    Returns:
      The guided denoiser.
    """

    def guided(x, t, cond):
        t = jnp.asarray(t, jnp.promote_types(x.dtype, jnp.float32))
        return guide(scale(logsnr(schedule, t)))(x, t, cond)

    return guided
