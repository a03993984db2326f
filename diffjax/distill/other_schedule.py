"""Networks and denoisers of one noise schedule on another, at the same signal-to-noise ratio.

x_t of one schedule is x_u of the other times k = hypot(alpha_u, sigma_u) / hypot(alpha_t, sigma_t)
where both have one log-SNR (Karras et al. 2022, section 2): x0_hat is the same.
"""

import jax.numpy as jnp

from diffjax.schedules import logsnr
from diffjax.types import Array, Coefficients, Denoiser, Parameterization, Schedule, per_sample


def same_snr(trained: Schedule, schedule: Schedule, t: Array) -> tuple[Array, Array]:
    """The time u of one schedule with the log-SNR of t on another, and k of x_u = k x_t.

    Args:
      trained: the schedule of u.
      schedule: the schedule of t.
      t: times, any shape.

    Returns:
      u and k, t's shape.
    """
    u = trained.t_from_logsnr(logsnr(schedule, t))
    k = jnp.hypot(trained.alpha(u), trained.sigma(u)) / jnp.hypot(
        schedule.alpha(t), schedule.sigma(t)
    )
    return u, k


def predicted_on(parameterization: Parameterization, trained: Schedule) -> Parameterization:
    """What a network that was trained on one schedule predicts on any other.

    Args:
      parameterization: of the network.
      trained: its schedule.

    Returns:
      A parameterization for other schedules.
    """

    def coefficients(schedule, t):
        u, k = same_snr(trained, schedule, t)
        c = parameterization(trained, u)
        return Coefficients(c.c_skip * k, c.c_out, c.c_in * k, c.c_noise)

    return coefficients


def denoiser_on(denoiser: Denoiser, trained: Schedule, schedule: Schedule) -> Denoiser:
    """A denoiser of one schedule, asked about samples of another.

    Args:
      denoiser: of x_u and u.
      trained: its schedule.
      schedule: that of x_t and t.

    Returns:
      A denoiser of x_t and t.
    """

    def moved(x, t, cond):
        u, k = same_snr(trained, schedule, jnp.asarray(t))
        return denoiser(per_sample(k, x) * x, u, cond)

    return moved
