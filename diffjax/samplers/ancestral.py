"""DDPM's own sampler: one draw of p(x_s | x_t) per step."""

import jax.numpy as jnp

from diffjax.diffusion import (
    log_variance_large,
    log_variance_learned,
    log_variance_small,
    q_posterior,
)
from diffjax.samplers.checks import choose
from diffjax.samplers.info import described, per_step
from diffjax.types import Sampler, Schedule, per_sample

VARIANCES = {
    "small": log_variance_small,
    "large": log_variance_large,
    "learned": log_variance_learned,
}


@described("Ho et al. 2020, Alg. 2", order=1, calls=per_step(1), weak=True)
def ancestral(schedule: Schedule, variance: str = "small") -> Sampler:
    """Ancestral sampling, over intervals of any length: Ho et al. 2020, Alg. 2.

    x_s = mean of q(x_s | x_t, x0_hat) + sqrt(variance) z, without noise at clean data.

    Args:
      schedule: the noise schedule.
      variance: "small" (beta-tilde), "large" (beta), or "learned" (Nichol & Dhariwal 2021).

    Returns:
      A sampler of weak order 1 that wants one noise array per step; one denoiser call per step.

    Raises:
      InputError: an unknown variance.
    """
    log_variance = choose("variance", variance, VARIANCES)

    def step(noise, denoise, x, t, s, state):
        prediction = denoise(x, t)
        mean, _, _ = q_posterior(schedule, prediction.x0, x, t, s)
        std = jnp.exp(per_sample(log_variance(schedule, t, s, prediction), x) / 2)
        clean = per_sample(schedule.sigma(s) == 0, x)
        return jnp.where(clean, mean, mean + std * noise[0]), state

    return Sampler(lambda x, ts: (), step, draws=1)
