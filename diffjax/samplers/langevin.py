"""Langevin dynamics: as a sampler of its own, and as the corrector of another.

One step at time t is x + e score + sqrt(2 e) z. Its size is e = 2 scale^2 (snr sigma)^2,
where scale is that of the forward step just undone: the published
2 scale^2 (snr |z|/|score|)^2 with |score| = |z|/sigma, which is what noise alone has. No
norm over the batch enters, so that a sample does not depend on the others (the annealed
corrector of Song et al. 2021's released code).
"""

import jax.numpy as jnp
from jax import lax

from diffjax.diffusion import score_from_x0, transition
from diffjax.samplers.checks import SamplerOf, as_sampler, at_least, count
from diffjax.samplers.euler_ancestral import ancestral_step
from diffjax.samplers.info import described, sampler_info
from diffjax.samplers.sde import reverse_diffusion
from diffjax.types import (
    Array,
    BoundDenoiser,
    Sampler,
    Samples,
    Scalar,
    Schedule,
    Time,
    per_sample,
)


def langevin_step(
    schedule: Schedule, denoise: BoundDenoiser, x: Samples, t: Time, size: Array, noise: Samples
) -> Samples:
    """x + size score + sqrt(2 size) z: Song et al. 2021, Alg. 4-5.

    Args:
      schedule: the noise schedule.
      denoise: a denoiser with its condition bound.
      x: the sample at t.
      t: time, a scalar or (B,), with sigma(t) > 0.
      size: step size, small against sigma(t)^2, t's shape.
      noise: standard normal, x's shape.

    Returns:
      x after one step, still at t.
    """
    score = score_from_x0(schedule, x, t, denoise(x, t).x0)
    return x + per_sample(size, x) * score + per_sample(jnp.sqrt(2 * size), x) * noise


def _corrected_calls(n: int, predictor: SamplerOf, corrector_steps: int, **_) -> int:
    """The predictor's calls, and the corrector's in all steps but the last."""
    return sampler_info(predictor).calls(n) + corrector_steps * (n - 1)


@described("Song et al. 2021, Alg. 2-3", calls=_corrected_calls)
def predictor_corrector(
    schedule: Schedule,
    predictor: SamplerOf = reverse_diffusion,
    snr: Scalar = 0.16,
    corrector_steps: int = 1,
) -> Sampler:
    """A predictor's step to s, then Langevin steps at s: Song et al. 2021, Alg. 2-3.

    There is no correction at clean data.

    Args:
      schedule: the noise schedule.
      predictor: any sampler, or the constructor of one.
      snr: signal-to-noise ratio r of the correction, at most about 0.3; may be traced.
      corrector_steps: Langevin steps per interval, at least 1.

    Returns:
      A sampler that wants the predictor's noise, then corrector_steps arrays. It makes the
      predictor's denoiser calls, and `corrector_steps` more in every step but the last.

    Raises:
      InputError: snr is negative, or corrector_steps is not a positive integer.
    """
    at_least("snr", snr)
    count("corrector_steps", corrector_steps)
    predictor = as_sampler(schedule, predictor)

    def step(noise, denoise, x, t, s, state):
        x, state = predictor.step(noise[: predictor.draws], denoise, x, t, s, state)
        scale, _ = transition(schedule, t, s)
        size = 2 * (scale * snr * schedule.sigma(s)) ** 2

        def correct(x, noise):
            return langevin_step(schedule, denoise, x, s, size, noise).astype(x.dtype), None

        def corrected():
            return lax.scan(correct, x, noise[predictor.draws :])[0]

        return lax.cond(schedule.sigma(s) == 0, lambda: x, corrected), state

    draws = predictor.draws + corrector_steps
    return Sampler(predictor.init, step, draws, predictor.inner)


@described("Song & Ermon 2019, Alg. 1", calls=lambda n, steps, **_: steps * (n - 1) + 1)
def langevin(schedule: Schedule, snr: Scalar = 0.22, steps: int = 100) -> Sampler:
    """Annealed Langevin dynamics, on the levels of the grid: Song & Ermon 2019, Alg. 1.

    From one level to the next x/alpha stays, and `steps` Langevin steps are made there. A step
    to clean data gives x0_hat (Jolicoeur-Martineau et al. 2021, section 3.1), and one from
    alpha 0 begins with a posterior draw. The default snr is the paper's e/sigma_L^2 = 0.2,
    4 snr^2 here. Levels should be close: r_t/r_s below about 1.7.

    Args:
      schedule: the noise schedule.
      snr: the step size is 2 (snr sigma_s)^2, reduced on coarse grids; may be traced.
      steps: Langevin steps per level, at least 1; memory grows with their noise.

    Returns:
      A sampler that wants `steps` noise arrays per step; `steps` denoiser calls per step and one in
      the last.

    Raises:
      InputError: snr is negative, or steps is not a positive integer.
    """
    count("steps", steps)

    def stay(noise, denoise, x, t, s, state):
        def drawn():
            return ancestral_step(schedule, x, denoise(x, t).x0, t, s, noise[0])

        def carried():
            return per_sample(schedule.alpha(s) / schedule.alpha(t), x) * x

        singular = (schedule.alpha(t) == 0) | (schedule.sigma(s) == 0)
        return lax.cond(singular, drawn, carried), state

    return predictor_corrector(schedule, Sampler(lambda x, ts: (), stay, draws=1), snr, steps)
