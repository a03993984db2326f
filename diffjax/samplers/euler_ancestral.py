"""Ancestral steps: down past the next noise level, then back up to it with fresh noise.

k-diffusion writes these in y = x/alpha and r = sigma/alpha. A step down from r_t to r_down
and noise r_up with r_down^2 + r_up^2 = r_s^2, multiplied by alpha_s, is

  x_s = alpha_s x0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std z,
  std = min(sigma_s, eta sigma_s sqrt(1 - SNR(t)/SNR(s))),

which holds on every schedule: exactly x0_hat at clean data, finite at zero terminal SNR.
"""

import jax.numpy as jnp
from jax import lax

from diffjax.diffusion import eps_from_x0, posterior_variance, q_sample, safe_sqrt
from diffjax.samplers.checks import at_least, is_zero
from diffjax.samplers.info import but_last, described, per_step
from diffjax.schedules import logsnr
from diffjax.types import Array, Sampler, Samples, Scalar, Schedule, Time, per_sample


def ancestral_scales(
    schedule: Schedule, t: Time, s: Time, eta: Scalar = 1.0
) -> tuple[Array, Array]:
    """Noise kept and noise added by an ancestral step, whose squares sum to sigma(s)^2.

    Args:
      schedule: the noise schedule.
      t: later time, a scalar or (B,), with sigma(t) > 0.
      s: earlier time, t's shape.
      eta: share of the posterior's standard deviation; 0 adds nothing.

    Returns:
      alpha_s r_down and std = alpha_s r_up, t's shape.
    """
    sigma = schedule.sigma(jnp.asarray(s))
    std = eta * safe_sqrt(posterior_variance(schedule, t, s))
    std = jnp.minimum(std, sigma)
    return safe_sqrt((sigma - std) * (sigma + std)), std


def ancestral_step(
    schedule: Schedule,
    x: Samples,
    x0: Samples,
    t: Time,
    s: Time,
    noise: Samples,
    eta: Scalar = 1.0,
) -> Samples:
    """x_s drawn given x_t and x0: at eta 1 from the posterior q(x_s | x_t, x0), DDPM Eq. 7.

    Args:
      schedule: the noise schedule.
      x: the sample at t.
      x0: a prediction of the data.
      t: later time, a scalar or (B,), with sigma(t) > 0.
      s: earlier time, t's shape.
      noise: standard normal, x's shape.
      eta: see `ancestral_scales`.

    Returns:
      x_s, x's shape.
    """
    kept, std = ancestral_scales(schedule, t, s, eta)
    mean = per_sample(schedule.alpha(s), x) * x0
    mean = mean + per_sample(kept, x) * eps_from_x0(schedule, x, t, x0)
    return mean + per_sample(std, x) * noise


@described("k-diffusion's sample_euler_ancestral", order=1, calls=per_step(1), weak=True)
def euler_ancestral(schedule: Schedule, eta: Scalar = 1.0) -> Sampler:
    """Euler with ancestral noise: k-diffusion's `sample_euler_ancestral`.

    For eta up to 1 this is DDIM with the same eta (Song et al. 2021, Eq. 12).

    Args:
      schedule: the noise schedule.
      eta: 0 is `euler`, 1 is DDPM with the small variance; may be traced.

    Returns:
      A sampler of weak order 1 that wants one noise array per step; one denoiser call per step.

    Raises:
      InputError: eta is negative.
    """
    at_least("eta", eta)

    def step(noise, denoise, x, t, s, state):
        return ancestral_step(schedule, x, denoise(x, t).x0, t, s, noise[0], eta), state

    return Sampler(lambda x, ts: (), step, draws=1, stochastic=not is_zero(eta))


@described("k-diffusion's sample_dpmpp_2s_ancestral", order=2, calls=but_last(2), weak=True)
def dpmpp_2s_ancestral(schedule: Schedule, eta: Scalar = 1.0) -> Sampler:
    """DPM-Solver++(2S) down, ancestral noise up: k-diffusion's `sample_dpmpp_2s_ancestral`.

    A first-order step to r_mid = sqrt(r_t r_down) gives the x0_hat with which the whole step
    is taken (Lu et al. 2023, Alg. 1 with r_1 = 1/2). A step to clean data, and one from
    alpha 0, where r is infinite, are `euler_ancestral`'s.

    Args:
      schedule: the noise schedule.
      eta: 0 is deterministic DPM-Solver++(2S); may be traced.

    Returns:
      A sampler of weak order 2 that wants one noise array per step; two denoiser calls per step and
      one in the last.

    Raises:
      InputError: eta is negative.
    """
    at_least("eta", eta)

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0
        kept, _ = ancestral_scales(schedule, t, s, eta)

        def at_middle():
            down = 2 * (jnp.log(schedule.alpha(s)) - jnp.log(kept))
            middle = schedule.t_from_logsnr((logsnr(schedule, t) + down) / 2)
            return denoise(q_sample(schedule, x0, middle, eps_from_x0(schedule, x, t, x0)), middle)

        first_order = (kept == 0) | (schedule.alpha(t) == 0)
        x0 = lax.cond(first_order, lambda: x0, lambda: at_middle().x0)
        return ancestral_step(schedule, x, x0, t, s, noise[0], eta), state

    return Sampler(lambda x, ts: (), step, draws=1, stochastic=not is_zero(eta))
