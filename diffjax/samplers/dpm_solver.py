"""DPM-Solver++: exponential integrators in half the log-SNR, lambda = log(alpha/sigma)."""

import jax.numpy as jnp

from diffjax.schedules import logsnr
from diffjax.types import Sampler, Schedule, per_sample


def dpmpp_2m(schedule: Schedule) -> Sampler:
    """DPM-Solver++(2M), order 2: Lu et al. 2023, Alg. 2.

    x_s = sigma_s/sigma_t x_t + alpha_s (1 - e^-h) D with h = lambda_s - lambda_t and
    D = x0_hat + h/(2 h_before) (x0_hat - x0_hat before). The first step, a step to clean
    data (h infinite) and the one after a zero SNR are first order.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler, one denoiser call per step; its state is the last x0_hat and
      the lambda at which it was made.
    """

    def init(x, ts):
        # lambda = -inf: an infinite step before, so that h/h_before is 0.
        return jnp.zeros_like(x), jnp.asarray(-jnp.inf, x.dtype)

    def step(noise, denoise, x, t, s, state):
        x0_before, half_before = state
        x0 = denoise(x, t).x0
        half_t, half_s = logsnr(schedule, t) / 2, logsnr(schedule, s) / 2
        h, h_before = half_s - half_t, half_t - half_before
        first_order = jnp.isinf(h) | jnp.isinf(h_before) | jnp.isnan(h_before)
        slope = jnp.where(first_order, 0, h / jnp.where(first_order, 1, 2 * h_before))
        data = x0 + per_sample(slope, x) * (x0 - x0_before)
        decay = per_sample(schedule.sigma(s) / schedule.sigma(t), x)
        x = decay * x - per_sample(schedule.alpha(s) * jnp.expm1(-h), x) * data
        return x, (x0, half_t.astype(half_before.dtype))

    return Sampler(init, step)
