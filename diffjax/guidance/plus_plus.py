"""CFG++: guided data, unconditional noise."""

from diffjax.diffusion import eps_from_x0, q_sample
from diffjax.types import Sampler, Schedule, Time, per_sample


def cfg_plus_plus(schedule: Schedule, scale: Time) -> Sampler:
    """DDIM whose step adds the unconditional noise to the guided x0: Chung et al. 2024, Alg. 1.

    x_s = alpha_s (x0_u + scale (x0_c - x0_u)) + sigma_s eps_u. It acts on x0 and eps, of which
    each gives the other.

    Args:
      schedule: the noise schedule.
      scale: lambda of the paper, in [0, 1]; a scalar or one per sample; may be traced.

    Returns:
      A deterministic sampler of `pair(denoiser, null)`, in place of the denoiser.
    """

    def step(noise, denoise, x, t, s, state):
        cond, uncond = denoise(x, t).x0
        x0 = uncond + per_sample(scale, x) * (cond - uncond)
        return q_sample(schedule, x0, s, eps_from_x0(schedule, x, t, uncond)), state

    return Sampler(lambda x, ts: (), step)
