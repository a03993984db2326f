"""The exact part of the reverse SDE in half the log-SNR, lambda = log(alpha/sigma).

With noise weight eta (tau^2 of SA-Solver; 0 is the probability flow, 1 the SDE of Song et
al. 2021) and h = lambda_s - lambda_t, Xue et al. 2023, Eq. 14:

  x_s = sigma_s/sigma_t e^(-eta h) x_t + alpha_s D + sigma_s sqrt(1 - e^(-2 eta h)) z,
  D = integral over the step of (1 + eta) e^(-(1 + eta)(lambda_s - lambda)) x0_hat dlambda.

The solvers differ in the polynomial that stands for x0_hat.
"""

from math import factorial

import jax.numpy as jnp

from diffjax.diffusion import safe_sqrt
from diffjax.schedules import logsnr
from diffjax.types import Array, Samples, Scalar, Schedule, Time, per_sample

HUGE = 1e20
"""A step in lambda this long starts at alpha 0 or ends at sigma 0; e^-HUGE is exactly 0."""

SERIES_TERMS = 20


def half_logsnr(schedule: Schedule, t: Time) -> Array:
    """lambda(t) = log(alpha/sigma), within [-HUGE, HUGE] so that differences are numbers."""
    return jnp.clip(logsnr(schedule, t) / 2, -HUGE, HUGE)


def log_step(schedule: Schedule, t: Time, s: Time) -> Array:
    """h = lambda_s - lambda_t, at most HUGE."""
    return jnp.minimum(half_logsnr(schedule, s) - half_logsnr(schedule, t), HUGE)


def moments(z: Array, n: int) -> list[Array]:
    """m_p = integral of z e^(-z (1 - v)) v^p over v in [0, 1], for p < n.

    m_0 = 1 - e^-z and m_p = 1 - p m_{p-1}/z; below z = 1, where that cancels, the series
    m_p = sum_k z (-z)^k p!/(p + k + 1)!. The phi_2 of k-diffusion is m_1, its phi_3 -m_2/2.

    Args:
      z: (1 + eta) h, positive.
      n: how many.

    Returns:
      n arrays of z's shape, each in [0, 1].
    """
    small, large = jnp.minimum(z, 1), jnp.maximum(z, 1)
    exact, found = -jnp.expm1(-large), []
    for p in range(n):
        exact = exact if p == 0 else 1 - p * exact / large
        series = [(-1) ** k * factorial(p) / factorial(p + k + 1) for k in range(SERIES_TERMS)]
        near_zero = small * jnp.polyval(jnp.asarray(series[::-1]), small)
        found.append(jnp.where(z < 1, near_zero, exact))
    return found


def exponential_step(
    schedule: Schedule,
    x: Samples,
    data: Samples,
    t: Time,
    s: Time,
    noise: Samples,
    eta: Scalar,
) -> Samples:
    """The equation at the head of this file, given its D.

    Args:
      schedule: the noise schedule.
      x: the sample at t.
      data: D, whose weights on x0_hat sum to 1 - e^(-(1 + eta) h).
      t: later time, a scalar or (B,), with sigma(t) > 0.
      s: earlier time, t's shape.
      noise: standard normal, x's shape.
      eta: noise weight, at least 0.

    Returns:
      x_s, x's shape; D itself at clean data.
    """
    h = log_step(schedule, t, s)
    decay = schedule.sigma(s) / schedule.sigma(t) * jnp.exp(-eta * h)
    std = schedule.sigma(s) * safe_sqrt(-jnp.expm1(-2 * eta * h))
    mean = per_sample(decay, x) * x + per_sample(schedule.alpha(s), x) * data
    return mean + per_sample(std, x) * noise
