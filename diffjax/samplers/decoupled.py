"""Any sampler with its denoiser asked about other times than those of the grid."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.samplers.checks import SamplerOf, as_sampler, known
from diffjax.samplers.dpm_solver import dpmpp_2m
from diffjax.samplers.info import described, sampler_info
from diffjax.schedules import logsnr
from diffjax.types import Array, Sampler, Schedule


def _inner_order(sampler: SamplerOf, **_) -> int | None:
    return sampler_info(sampler).order


def _inner_calls(n: int, sampler: SamplerOf, **_) -> int:
    return sampler_info(sampler).calls(n)


@described("Tong et al. 2024", order=_inner_order, calls=_inner_calls)
def decoupled(
    schedule: Schedule, sampler: SamplerOf = dpmpp_2m, offsets: Array | float = 0.0
) -> Sampler:
    """A sampler whose denoiser is asked about a shifted noise level: Tong et al. 2024.

    In step k x0_hat is that of (x_t, t'), logsnr(t') = logsnr(t) + offsets_k, while the sampler's
    own coefficients are those of t. With few steps x_t is not quite as noisy as the exact
    solution at t, and t' can say so; `learn_decoupled_grid` finds the offsets.

    Args:
      schedule: the noise schedule.
      sampler: a sampler, or the constructor of one.
      offsets: of the log-SNR, one number or one per step (n,); t' is held within the
        schedule's t_min and t_max. 0 changes nothing. May be traced.

    Returns:
      The sampler with another denoiser: of its order and its denoiser calls.

    Raises:
      InputError: offsets are not finite; when sampling, they do not have one number per step.
    """
    sampler = as_sampler(schedule, sampler)
    if known(offsets) and not np.isfinite(offsets).all():
        raise InputError(f"offsets of decoupled must be finite; got {offsets}.")

    def init(x, ts):
        steps = ts.shape[0] - 1
        if jnp.shape(offsets) not in ((), (steps,)):
            raise InputError(
                f"offsets of decoupled must be one number or one for each of the {steps} steps of "
                f"the grid; got shape {jnp.shape(offsets)}. Use the grid they were learned with."
            )
        return jnp.asarray(0), jnp.broadcast_to(offsets, (steps,)), sampler.init(x, ts)

    def step(noise, denoise, x, t, s, state):
        index, offsets, inner = state

        def asked(x, t):
            return denoise(x, shift_time(schedule, t, offsets[index]))

        x, inner = sampler.step(noise, asked, x, t, s, inner)
        return x, (index + 1, offsets, inner)

    return sampler._replace(init=init, step=step)


def shift_time(schedule: Schedule, t: Any, offset: Any) -> Array:
    """The time whose log-SNR is that of t plus an offset, within t_min and t_max; t for 0."""
    start = logsnr(schedule, t)
    change = schedule.t_from_logsnr(start + offset) - schedule.t_from_logsnr(start)
    return jnp.clip(t + change, jnp.minimum(t, schedule.t_min), jnp.maximum(t, schedule.t_max))
