"""The stochastic sampler of Karras et al. 2022: noise is raised a little, then Heun."""

import jax
import jax.numpy as jnp
from jax import lax

from diffjax.diffusion import q_step
from diffjax.errors import InputError
from diffjax.samplers.checks import at_least, is_zero
from diffjax.samplers.info import but_last, described
from diffjax.samplers.runge_kutta import heun
from diffjax.schedules import logsnr
from diffjax.types import Sampler, Scalar, Schedule


@described("Karras et al. 2022, Alg. 2", order=2, calls=but_last(2), weak=True)
def edm_stochastic(
    schedule: Schedule,
    churn: Scalar = 40.0,
    noise_min: Scalar = 0.05,
    noise_max: Scalar = 50.0,
    noise_scale: Scalar = 1.003,
) -> Sampler:
    """Heun with churn: Karras et al. 2022, Alg. 2.

    Where r = sigma/alpha is in [noise_min, noise_max], x_t is first carried to the noisier
    time of r (1 + gamma), gamma = min(churn/n, sqrt(2) - 1), with fresh noise times
    noise_scale. No churn at alpha 0. The defaults are those of Table 5 for ImageNet-64.

    Args:
      schedule: the noise schedule.
      churn: S_churn, the noise renewed over the whole run; 0 is `heun`. All may be traced.
      noise_min: S_tmin, lowest r that is churned.
      noise_max: S_tmax, highest r that is churned.
      noise_scale: S_noise, standard deviation of the fresh noise.

    Returns:
      A sampler of weak order 2 that wants one noise array per step; two denoiser calls per step and
      one in the last. Its state is gamma.

    Raises:
      InputError: a negative argument, or noise_min above noise_max.
    """
    named = {"churn": churn, "noise_min": noise_min, "noise_scale": noise_scale}
    for name, value in named.items():
        at_least(name, value)
    bounds = (noise_min, noise_max)
    if not any(isinstance(b, jax.core.Tracer) for b in bounds) and not noise_min <= noise_max:
        raise InputError(f"noise_min must be at most noise_max; got {noise_min} and {noise_max}.")
    solver = heun(schedule)

    def init(x, ts):
        return jnp.minimum(jnp.asarray(churn / (ts.shape[0] - 1), float), 2**0.5 - 1)

    def step(noise, denoise, x, t, s, gamma):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        inside = (noise_min * alpha <= sigma) & (sigma <= noise_max * alpha)

        def churned():
            t_hat = schedule.t_from_logsnr(logsnr(schedule, t) - 2 * jnp.log1p(gamma))
            t_hat = jnp.maximum(t_hat, t)
            return q_step(schedule, x, t, t_hat, noise_scale * noise[0]), t_hat

        churns = inside & (gamma > 0) & (alpha > 0)
        x_hat, t_hat = lax.cond(churns, churned, lambda: (x, jnp.asarray(t)))
        x, _ = solver.step(noise[:0], denoise, x_hat, t_hat, s, ())
        return x, gamma

    return Sampler(init, step, draws=1, stochastic=not is_zero(churn))
