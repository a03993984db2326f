"""Adaptive projected guidance: Sadat et al. 2024."""

import jax.numpy as jnp

from diffjax.guidance.null import Nulls
from diffjax.guidance.pair import by_rule, dot, in_domain, square
from diffjax.parameterization import predict_x0
from diffjax.types import (
    Array,
    Denoiser,
    Parameterization,
    Sampler,
    Scalar,
    Schedule,
    Time,
    per_sample,
)


def projected_rule(
    cond: Array, uncond: Array, scale: Time, eta: Scalar, limit: Scalar, past: Array | float = 0.0
) -> Array:
    """u + w (d_orthogonal + eta d_parallel) of d = c - u + past: Sadat et al. 2024, Eq. 5-9.

    Args:
      cond: conditional prediction c (B, ...).
      uncond: unconditional prediction u.
      scale: w, a scalar or (B,).
      eta: share of the component of d along c that is kept; 1 is plain guidance, 0 has none.
      limit: largest norm of d, which is shrunk to it; infinity is none.
      past: momentum times the d of the step before, see `adaptive_projected_sampler`.

    Returns:
      The guided prediction; norms and projections are over all axes of a sample.
    """
    shift = cond - uncond + past
    shift = shift * jnp.minimum(1, limit / jnp.sqrt(square(shift)))
    parallel = dot(shift, cond) / square(cond) * cond
    return uncond + per_sample(scale, cond) * (shift - (1 - eta) * parallel)


def adaptive_projected(
    denoiser: Denoiser,
    scale: Time,
    null: Nulls,
    schedule: Schedule,
    eta: Scalar = 0.0,
    limit: Scalar = jnp.inf,
    domain: Parameterization = predict_x0,
) -> Denoiser:
    """Guidance without its component along the conditional prediction: APG, Sadat et al. 2024.

    It acts in `domain`, where the paper's is x0. Momentum needs a state, which a denoiser has
    not: see `adaptive_projected_sampler`.

    Args:
      denoiser: trained with `condition_dropout`.
      scale: of the guidance, a scalar or one per sample; may be a traced value.
      null: the null value of each condition, as for `classifier_free`.
      schedule: the noise schedule.
      eta: share of the parallel component that is kept; the paper's is 0.
      limit: largest norm of the difference, positive; infinity is none.
      domain: what is projected.

    Returns:
      The guided denoiser.
    """
    return by_rule(
        denoiser, lambda c, u: projected_rule(c, u, scale, eta, limit), null, schedule, domain
    )


def adaptive_projected_sampler(
    sampler: Sampler,
    scale: Time,
    schedule: Schedule,
    momentum: Scalar = -0.5,
    eta: Scalar = 0.0,
    limit: Scalar = jnp.inf,
    domain: Parameterization = predict_x0,
) -> Sampler:
    """Any sampler under `adaptive_projected` guidance with momentum: Sadat et al. 2024, Alg. 1.

    The difference of each step is c - u plus momentum times that of the step before; of a
    sampler that calls the denoiser several times in a step, that of the first call.

    Args:
      sampler: of `diffjax.samplers`, whose step calls the denoiser outside of any branch.
      scale: of the guidance, a scalar or one per sample; may be a traced value.
      schedule: the noise schedule.
      momentum: of the difference; negative in the paper.
      eta: share of the parallel component that is kept.
      limit: largest norm of the difference, positive; infinity is none.
      domain: what is projected.

    Returns:
      A sampler of `pair(denoiser, null)`, in place of the denoiser.
    """

    def step(noise, denoise, x, t, s, state):
        inner, before = state
        shifts = []

        def guided(x, t):
            def rule(c, u):
                shifts.append(c - u + momentum * before)
                return projected_rule(c, u, scale, eta, limit, momentum * before)

            both = denoise(x, t)
            return both._replace(x0=in_domain(rule, schedule, domain, x, t)(*both.x0))

        x, inner = sampler.step(noise, guided, x, t, s, inner)
        return x, (inner, shifts[0])

    def init(x, ts):
        return sampler.init(x, ts), jnp.zeros_like(x)

    return sampler._replace(init=init, step=step)
