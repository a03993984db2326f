"""Runge-Kutta on the probability flow in the coordinates of Karras et al. 2022.

With y = x/alpha and r = sigma/alpha the flow is dy/dr = eps_hat for every schedule. Euler
in (y, r) is x_s = alpha_s x0_hat + sigma_s eps_hat, exact at clean data and finite at zero
terminal SNR; the second-order methods correct it by differences of eps.
"""

from jax import lax

from diffjax.diffusion import eps_from_x0, q_sample
from diffjax.types import Sampler, Schedule, per_sample


def euler(schedule: Schedule) -> Sampler:
    """Euler, order 1: Karras et al. 2022, Alg. 1 without its lines 6-8.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler, one denoiser call per step.
    """

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0
        return q_sample(schedule, x0, s, eps_from_x0(schedule, x, t, x0)), state

    return Sampler(lambda x, ts: (), step)


def heun(schedule: Schedule) -> Sampler:
    """Heun, order 2: Karras et al. 2022, Alg. 1.

    x_s = Euler + alpha_s (r_s - r_t)/2 (eps_hat at s - eps_hat at t). The step to clean data,
    and one from alpha 0, where r is infinite, are Euler.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler, two denoiser calls per step and one in the last.
    """

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0
        eps = eps_from_x0(schedule, x, t, x0)
        predicted = q_sample(schedule, x0, s, eps)

        def corrected():
            alpha, sigma = schedule.alpha(s), schedule.sigma(s)
            width = sigma - alpha * schedule.sigma(t) / schedule.alpha(t)
            change = eps_from_x0(schedule, predicted, s, denoise(predicted, s).x0) - eps
            return predicted + per_sample(width / 2, x) * change

        first_order = (schedule.sigma(s) == 0) | (schedule.alpha(t) == 0)
        return lax.cond(first_order, lambda: predicted, corrected), state

    return Sampler(lambda x, ts: (), step)
