"""The reverse SDE dx = (f x - g^2 score) dt + g dw of Song et al. 2021, Eq. 6, discretised."""

import jax.numpy as jnp
from jax import lax

from diffjax.diffusion import diffusion_squared, drift, score_from_x0, transition
from diffjax.samplers.euler_ancestral import ancestral_step
from diffjax.samplers.info import described, per_step
from diffjax.types import Sampler, Schedule, per_sample


def _sampler(schedule, regular):
    """A sampler of `regular` steps, (x, score, t, s) -> (mean, variance).

    The SDE is singular at alpha 0, and a step to clean data has no noise: both are drawn
    from q(x_s | x_t, x0_hat), which at clean data is x0_hat itself.
    """

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0

        def along_sde():
            score = score_from_x0(schedule, x, t, x0)
            mean, variance = regular(x, score, t, s)
            return mean + per_sample(jnp.sqrt(variance), x) * noise[0]

        singular = (schedule.alpha(t) == 0) | (schedule.sigma(s) == 0)
        at_end = lambda: ancestral_step(schedule, x, x0, t, s, noise[0])  # noqa: E731
        return lax.cond(singular, at_end, along_sde), state

    return Sampler(lambda x, ts: (), step, draws=1)


@described("Song et al. 2021, Eq. 6", order=1, calls=per_step(1), weak=True)
def euler_maruyama(schedule: Schedule) -> Sampler:
    """Euler-Maruyama on the reverse SDE: Song et al. 2021, Eq. 6.

    x_s = x_t - (f x_t - g^2 score)(t - s) + g sqrt(t - s) z with f and g at t. A step to
    clean data gives x0_hat; one from alpha 0, where f is infinite, is a posterior draw.

    Args:
      schedule: the noise schedule.

    Returns:
      A sampler of weak order 1 that wants one noise array per step; one denoiser call per step.
    """

    def regular(x, score, t, s):
        f, g_squared = drift(schedule, t), diffusion_squared(schedule, t)
        slope = per_sample(f, x) * x - per_sample(g_squared, x) * score
        return x - per_sample(t - s, x) * slope, g_squared * (t - s)

    return _sampler(schedule, regular)


@described("Song et al. 2021, Eq. 46", order=1, calls=per_step(1), weak=True)
def reverse_diffusion(schedule: Schedule) -> Sampler:
    """The reverse of the forward chain's own discretisation: Song et al. 2021, Eq. 46.

    The chain x_t = a x_s + b z with a = alpha_t/alpha_s and b^2 = sigma^2_{t|s} is reversed
    as x_s = x_t + (1 - a) x_t + b^2 score + b z. The ends are as in `euler_maruyama`.

    Args:
      schedule: the noise schedule.

    Returns:
      A sampler of weak order 1 that wants one noise array per step; one denoiser call per step.
    """

    def regular(x, score, t, s):
        scale, variance = transition(schedule, t, s)
        return per_sample(2 - scale, x) * x + per_sample(variance, x) * score, variance

    return _sampler(schedule, regular)
