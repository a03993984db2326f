"""Guidance whose result keeps the size of the conditional prediction."""

import jax.numpy as jnp

from diffjax.guidance.null import Nulls
from diffjax.guidance.pair import by_rule, square
from diffjax.parameterization import predict_eps
from diffjax.types import Array, Denoiser, Parameterization, Schedule, Time, per_sample


def _centred(a: Array) -> Array:
    return a - jnp.mean(a, axis=tuple(range(1, a.ndim)), keepdims=True)


def rescale_rule(cond: Array, uncond: Array, scale: Time, rescale: Time) -> Array:
    """phi g std(c)/std(g) + (1 - phi) g of g = u + w (c - u): Lin et al. 2024, Eq. 14-16.

    Args:
      cond: conditional prediction c (B, ...).
      uncond: unconditional prediction u.
      scale: w, a scalar or (B,).
      rescale: phi in [0, 1], a scalar or (B,); 0 is plain guidance.

    Returns:
      The guided prediction; standard deviations are over all axes of a sample.
    """
    plain = uncond + per_sample(scale, cond) * (cond - uncond)
    ratio = jnp.sqrt(square(_centred(cond)) / square(_centred(plain)))
    return plain * (1 + per_sample(rescale, cond) * (ratio - 1))


def rescaled(
    denoiser: Denoiser,
    scale: Time,
    null: Nulls,
    schedule: Schedule,
    rescale: Time = 0.7,
    domain: Parameterization = predict_eps,
) -> Denoiser:
    """Guidance with the conditional's standard deviation: Lin et al. 2024, section 3.4.

    It acts in `domain`, where the paper's is that of the network's prediction.

    Args:
      denoiser: trained with `condition_dropout`.
      scale: of the guidance, a scalar or one per sample; may be a traced value.
      null: the null value of each condition, as for `classifier_free`.
      schedule: the noise schedule.
      rescale: phi of `rescale_rule`, in [0, 1].
      domain: what is rescaled, such as `predict_eps` or `predict_v`.

    Returns:
      The guided denoiser.
    """
    return by_rule(
        denoiser, lambda c, u: rescale_rule(c, u, scale, rescale), null, schedule, domain
    )


def magnitude_rule(cond: Array, uncond: Array, scale: Time, alpha: Time) -> Array:
    """u + w' (c - u) with w' = 1 + (w - 1) exp(-alpha |c - u|/|u|): MAMBO-G (2025).

    Args:
      cond: conditional prediction c (B, ...).
      uncond: unconditional prediction u.
      scale: w, a scalar or (B,).
      alpha: how fast a large difference damps the scale, at least 0; 0 is plain guidance.

    Returns:
      The guided prediction; norms are over all axes of a sample.
    """
    shift = cond - uncond
    ratio = jnp.sqrt(square(shift) / square(uncond))
    damped = 1 + (per_sample(scale, cond) - 1) * jnp.exp(-per_sample(alpha, cond) * ratio)
    return uncond + damped * shift


def mambo_g(
    denoiser: Denoiser,
    scale: Time,
    null: Nulls,
    schedule: Schedule,
    alpha: Time = 8.0,
    domain: Parameterization = predict_eps,
) -> Denoiser:
    """Guidance damped where the two predictions differ much, as early in sampling: MAMBO-G (2025).

    It acts in `domain`, where the paper's is that of the network's prediction.

    Args:
      denoiser: trained with `condition_dropout`.
      scale: of the guidance, a scalar or one per sample; may be a traced value.
      null: the null value of each condition, as for `classifier_free`.
      schedule: the noise schedule.
      alpha: of `magnitude_rule`, at least 0.
      domain: what is compared, such as `predict_eps` or `predict_velocity`.

    Returns:
      The guided denoiser.
    """
    return by_rule(
        denoiser, lambda c, u: magnitude_rule(c, u, scale, alpha), null, schedule, domain
    )
