"""Guidance that changes the unconditional prediction before it is used."""

import jax.numpy as jnp

from diffjax.guidance.null import Nulls
from diffjax.guidance.pair import by_rule, dot, in_domain, predict_both
from diffjax.parameterization import predict_eps, predict_velocity
from diffjax.types import Array, Denoiser, Parameterization, Scalar, Schedule, Time, per_sample


def zero_star_rule(cond: Array, uncond: Array, scale: Time) -> Array:
    """a u + w (c - a u) with a = c.u/(u.u + 1e-8): CFG-Zero* (Fan et al. 2025), Eq. 9-12.

    Args:
      cond: conditional velocity c (B, ...).
      uncond: unconditional velocity u.
      scale: w, a scalar or (B,).

    Returns:
      The guided velocity; a is the factor of u that is nearest to c, one per sample.
    """
    nearest = dot(cond, uncond) / (dot(uncond, uncond) + 1e-8) * uncond
    return nearest + per_sample(scale, cond) * (cond - nearest)


def cfg_zero_star(
    denoiser: Denoiser,
    scale: Time,
    null: Nulls,
    schedule: Schedule,
    zero_from: Scalar = jnp.inf,
    domain: Parameterization = predict_velocity,
) -> Denoiser:
    """Guidance from the best multiple of the unconditional velocity: CFG-Zero*, Fan et al. 2025.

    It acts in `domain`, where the paper's is the velocity of a flow.

    Args:
      denoiser: trained with `condition_dropout`.
      scale: of the guidance, a scalar or one per sample; may be a traced value.
      null: the null value of each condition, as for `classifier_free`.
      schedule: the noise schedule.
      zero_from: time from which on the prediction is 0, the paper's zero-init of the first
        steps; infinity is none.
      domain: what the rule acts on.

    Returns:
      The guided denoiser.
    """

    def guided(x, t, cond):
        def rule(c, u):
            off = jnp.asarray(t >= zero_from)
            return jnp.where(per_sample(off, c), 0, zero_star_rule(c, u, scale))

        both = predict_both(denoiser, x, t, cond, null)
        return both[0]._replace(x0=in_domain(rule, schedule, domain, x, t)(*(p.x0 for p in both)))

    return guided


def tangential_rule(cond: Array, uncond: Array, scale: Time) -> Array:
    """u' + w (c - u') with u' the part of u along the main direction of {c, u}: TCFG (2025).

    The direction is the first right singular vector of [c; u]. With its left one
    (cos a, sin a), tan 2a = 2 c.u/(c.c - u.u), u' = sin a (cos a c + sin a u).

    Args:
      cond: conditional prediction c (B, ...).
      uncond: unconditional prediction u.
      scale: w, a scalar or (B,).

    Returns:
      The guided prediction.
    """
    angle = jnp.arctan2(2 * dot(cond, uncond), dot(cond, cond) - dot(uncond, uncond)) / 2
    tangent = jnp.sin(angle) * (jnp.cos(angle) * cond + jnp.sin(angle) * uncond)
    return tangent + per_sample(scale, cond) * (cond - tangent)


def tangential(
    denoiser: Denoiser,
    scale: Time,
    null: Nulls,
    schedule: Schedule,
    domain: Parameterization = predict_eps,
) -> Denoiser:
    """Guidance by the tangential part of the unconditional prediction: TCFG, Kwon et al. 2025.

    It acts in `domain`, where the paper's is the score, a multiple of eps.

    Args:
      denoiser: trained with `condition_dropout`.
      scale: of the guidance, a scalar or one per sample; may be a traced value.
      null: the null value of each condition, as for `classifier_free`.
      schedule: the noise schedule.
      domain: what is projected.

    Returns:
      The guided denoiser.
    """
    return by_rule(denoiser, lambda c, u: tangential_rule(c, u, scale), null, schedule, domain)
