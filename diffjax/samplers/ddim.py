"""DDIM: a family from deterministic (eta 0) to ancestral (eta 1)."""

from diffjax.diffusion import eps_from_x0, posterior_variance, safe_sqrt
from diffjax.samplers.checks import at_least, is_zero
from diffjax.samplers.info import described, per_step
from diffjax.types import Sampler, Scalar, Schedule, per_sample


@described("Song et al. 2021 (DDIM), Eq. 12", order=1, calls=per_step(1), weak=True)
def ddim(schedule: Schedule, eta: Scalar = 0.0) -> Sampler:
    """DDIM, over intervals of any length: Song et al. 2021 (DDIM), Eq. 12.

    x_s = alpha_s x0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std z, where std is eta times
    the standard deviation of q(x_s | x_t, x0). With eta 0 it is also exact Euler in
    sigma/alpha, and over a reversed grid the inversion (`encode`).

    Args:
      schedule: the noise schedule.
      eta: 0 deterministic, 1 ancestral with the small variance; may be a traced value.

    Returns:
      A sampler of weak order 1 that wants one noise array per step; one denoiser call per step.

    Raises:
      InputError: eta is negative.
    """
    at_least("eta", eta)

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0
        eps = eps_from_x0(schedule, x, t, x0)
        sigma = schedule.sigma(s)
        std = eta * safe_sqrt(posterior_variance(schedule, t, s))
        direction = safe_sqrt(sigma**2 - std**2)
        mean = per_sample(schedule.alpha(s), x) * x0 + per_sample(direction, x) * eps
        return mean + per_sample(std, x) * noise[0], state

    return Sampler(lambda x, ts: (), step, draws=1, stochastic=not is_zero(eta))
