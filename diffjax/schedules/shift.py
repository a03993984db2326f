"""Schedules made from another by a constant shift of its log-SNR."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.types import Array, Scalar, Schedule

Norm = Callable[[Array, Array], Array]
"""(alpha, sigma) -> a length c, proportional to both; a schedule keeps to the curve c = 1."""


def _signal(alpha: Array, sigma: Array) -> Array:
    """The signal scale itself: alpha = 1."""
    return alpha + 0 * sigma


def _sub_vp(alpha: Array, sigma: Array) -> Array:
    """c with sigma / c = 1 - (alpha / c)^2."""
    return (sigma + jnp.sqrt(sigma**2 + 4 * alpha**2)) / 2


NORMS = (jnp.hypot, jnp.add, _signal, _sub_vp)


def _find_norm(schedule: Schedule) -> Norm:
    """The one of `NORMS` that is 1 along the schedule."""
    with jax.ensure_compile_time_eval():
        t = jnp.linspace(schedule.t_min, schedule.t_max, 5)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        if not isinstance(alpha, jax.core.Tracer) and not isinstance(sigma, jax.core.Tracer):
            for norm in NORMS:
                if np.allclose(norm(alpha, sigma), 1, atol=1e-4):
                    return norm
    raise InputError(
        "shifted knows schedules with alpha^2 + sigma^2 = 1, alpha + sigma = 1, alpha = 1 or "
        "sigma = 1 - alpha^2; this one is none of them, or traced. Pass the norm of "
        "(alpha, sigma) that it keeps at 1, such as norm=jnp.hypot for the first."
    )


def shifted(schedule: Schedule, ratio: Scalar, norm: Norm | None = None) -> Schedule:
    """The same times at a log-SNR higher by 2 log(ratio): Hoogeboom et al. 2023 (simple diffusion).

    (alpha, sigma) becomes (ratio alpha, sigma) / c, where c keeps the base's structure:
    alpha^2 + sigma^2 = 1 for VP, alpha + sigma = 1 for a flow, alpha = 1 for VE. With
    ratio 64/d a schedule made for images of 64 x 64 suits d x d. On `rectified_flow` it is
    the timestep shift of Esser et al. 2024 (Stable Diffusion 3), Eq. 23, of 1/ratio.

    Args:
      schedule: the base.
      ratio: sqrt of the factor on the SNR, positive; below 1 is more noise.
      norm: (alpha, sigma) -> c, proportional to both; None finds that of any schedule here.

    Returns:
      A schedule with the base's times, clean time included.

    Raises:
      InputError: ratio is not positive, or the base keeps to no known structure.
    """
    if not isinstance(ratio, jax.core.Tracer) and not 0 < ratio < float("inf"):
        raise InputError(f"shifted needs a positive ratio; got {ratio}. 1 is no shift.")
    norm = _find_norm(schedule) if norm is None else norm

    def scaled(t):
        signal, noise = ratio * schedule.alpha(t), schedule.sigma(t)
        return signal, noise, norm(signal, noise)

    def alpha(t):
        signal, _, c = scaled(t)
        return signal / c

    def sigma(t):
        _, noise, c = scaled(t)
        return noise / c

    return Schedule(
        alpha=alpha,
        sigma=sigma,
        t_from_logsnr=lambda logsnr: schedule.t_from_logsnr(logsnr - 2 * jnp.log(ratio)),
        t_min=schedule.t_min,
        t_max=schedule.t_max,
    )
