"""Samplers of flow maps and of consistency functions, on the one scan."""

import jax.numpy as jnp

from diffjax.diffusion import q_sample
from diffjax.distill.flow_map import Interval, jump
from diffjax.errors import InputError
from diffjax.schedules import logsnr
from diffjax.types import Sampler, Scalar, Schedule


def flow_map_sampler(schedule: Schedule, gamma: Scalar = 0.0) -> Sampler:
    """Jumps of a flow map with noise between them: gamma-sampling of CTM (Kim et al. 2024, Alg. 3).

    The map goes from t beyond s, to the time of noise level sqrt(1 - gamma^2) sigma_s/alpha_s, and
    noise of standard deviation gamma sigma_s comes back to s. gamma 0 is deterministic, 1 the
    multistep sampling of consistency models. The law at s is right for every gamma.

    Args:
      schedule: the noise schedule.
      gamma: share of noise, in [0, 1]; may be traced.

    Returns:
      A sampler for denoisers that answer an `Interval`, one call per step.

    Raises:
      InputError: a known gamma is outside [0, 1].
    """
    if isinstance(gamma, int | float) and not 0 <= gamma <= 1:
        raise InputError(
            f"gamma of flow_map_sampler must be in [0, 1]; got {gamma}. 0 adds no noise, 1 renews "
            "all of it at every step."
        )

    def step(noise, denoise, x, t, s, state):
        kept = -jnp.log1p(-(jnp.asarray(gamma, x.dtype) ** 2))  # +inf where all noise is new
        middle = schedule.t_from_logsnr(logsnr(schedule, s) + kept)
        x0 = denoise(x, Interval(t, middle)).x0
        there = jump(schedule, x, t, middle, x0)
        back = schedule.alpha(s) / schedule.alpha(middle)
        return back * there + gamma * schedule.sigma(s) * noise[0], state

    return Sampler(lambda x, ts: (), step, draws=1)


def consistency_sampler(schedule: Schedule) -> Sampler:
    """Clean data and fresh noise by turns: Song et al. 2023 (consistency models), Algorithm 1.

    x_s = alpha_s f(x_t, t) + sigma_s z.

    Args:
      schedule: the noise schedule.

    Returns:
      A sampler for denoisers of one time that are consistency functions, one call per step.
    """

    def step(noise, denoise, x, t, s, state):
        return q_sample(schedule, denoise(x, t).x0, s, noise[0]), state

    return Sampler(lambda x, ts: (), step, draws=1)
