"""DPM-Solver++ for the reverse SDE: the solvers of k-diffusion, on every schedule."""

import jax
import jax.numpy as jnp
from jax import lax

from diffjax.errors import InputError
from diffjax.samplers.checks import at_least, choose, is_zero
from diffjax.samplers.euler_ancestral import ancestral_step
from diffjax.samplers.exponential import HUGE, exponential_step, log_step, moments
from diffjax.samplers.info import but_last, described, per_step
from diffjax.samplers.linear_multistep import tame
from diffjax.schedules import logsnr
from diffjax.types import Array, Sampler, Scalar, Schedule, per_sample

SLOPES = {
    "midpoint": lambda z: moments(z, 1)[0] / 2,
    "heun": lambda z: moments(z, 2)[1],
}


@described(
    "k-diffusion's sample_dpmpp_sde, after Lu et al. 2023, section 5", 1, but_last(2), weak=True
)
def dpmpp_sde(schedule: Schedule, eta: Scalar = 1.0, r: Scalar = 0.5) -> Sampler:
    """SDE-DPM-Solver++(2S): k-diffusion's `sample_dpmpp_sde`, after Lu et al. 2023, section 5.

    An ancestral step to lambda_t + r h gives x0_hat there, and the whole ancestral step is
    taken with (1 - 1/(2r)) x0_hat_t + 1/(2r) x0_hat_middle. The noises of both are increments
    of one Brownian path in sigma/alpha: their correlation is
    sqrt((r_t - r_middle)/(r_t - r_s)). A step to clean data, and one from alpha 0, are
    `euler_ancestral`'s.

    Args:
      schedule: the noise schedule.
      eta: 0 is deterministic, 1 the reverse SDE; may be traced.
      r: where the middle lies, in (0, 1]; may be traced.

    Returns:
      A sampler of weak order 1 that wants two noise arrays per step, the middle's first; two
      denoiser calls per step and one in the last.

    Raises:
      InputError: eta is negative, or r is not in (0, 1].
    """
    at_least("eta", eta)
    if not isinstance(r, jax.core.Tracer) and not 0 < r <= 1:
        raise InputError(f"r, the middle's place in the step, must be in (0, 1]; got {r}.")

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0

        def extrapolated():
            start, stop = logsnr(schedule, t), logsnr(schedule, s)
            middle = schedule.t_from_logsnr(start + r * (stop - start))
            x_middle = ancestral_step(schedule, x, x0, t, middle, noise[0], eta)
            return x0 + (denoise(x_middle, middle).x0 - x0) / (2 * r)

        first_order = (schedule.sigma(s) == 0) | (schedule.alpha(t) == 0)
        data = lax.cond(first_order, lambda: x0, extrapolated)
        return ancestral_step(schedule, x, data, t, s, noise[1], eta), state

    def inner(t, s):
        h = log_step(schedule, t, s)
        share = jnp.expm1(-r * h) / jnp.expm1(-jnp.where(h > 0, h, 1))
        return jnp.where(h > 0, share, 1)[None]

    return Sampler(lambda x, ts: (), step, draws=2, inner=inner, stochastic=not is_zero(eta))


@described(
    "Lu et al. 2023, Eq. 18, as k-diffusion's sample_dpmpp_2m_sde", 2, per_step(1), weak=True
)
def dpmpp_2m_sde(schedule: Schedule, form: str = "midpoint", eta: Scalar = 1.0) -> Sampler:
    """SDE-DPM-Solver++(2M): Lu et al. 2023, Eq. 18, as k-diffusion's `sample_dpmpp_2m_sde`.

    `exponential_step` with D = m_0 x0_hat + c h/h_before (x0_hat - x0_hat before), where c is
    m_0/2 (midpoint) or m_1 (heun) of (1 + eta) h. The first step, one to clean data and the
    one after a zero SNR are first order.

    Args:
      schedule: the noise schedule.
      form: "midpoint" or "heun".
      eta: 0 is deterministic (with "midpoint" `dpmpp_2m`), 1 the reverse SDE; may be traced.

    Returns:
      A sampler of weak order 2 that wants one noise array per step; one denoiser call per step. Its
      state is the last x0_hat and h, HUGE before the first step.

    Raises:
      InputError: an unknown form, or a negative eta.
    """
    slope = choose("form", form, SLOPES)
    at_least("eta", eta)

    def init(x, ts):
        return jnp.zeros_like(x), jnp.asarray(HUGE, float)

    def step(noise, denoise, x, t, s, state):
        x0_before, h_before = state
        x0 = denoise(x, t).x0
        h = log_step(schedule, t, s)
        z = (1 + eta) * h
        weight = slope(z) * _steps_back(h, h_before)[0]
        data = per_sample(moments(z, 1)[0], x) * x0 + per_sample(weight, x) * (x0 - x0_before)
        x = exponential_step(schedule, x, data, t, s, noise[0], eta)
        return x, (x0, h.astype(h_before.dtype))

    return Sampler(init, step, draws=1, stochastic=not is_zero(eta))


def _steps_back(h: Array, *before: Array) -> Array:
    """h over each of the steps before, newest first, 0 for those that are not `tame` to use."""
    h_s, before = jnp.where(h < HUGE, h, 0), jnp.stack(before)
    nodes = -jnp.append(0.0, jnp.cumsum(before)).astype(before.dtype)
    usable = tame(nodes, jnp.append(True, before < HUGE), h_s[None])[1:]
    return jnp.where(usable, h_s / before, 0)


@described("k-diffusion's sample_dpmpp_3m_sde", order=2, calls=per_step(1), weak=True)
def dpmpp_3m_sde(schedule: Schedule, eta: Scalar = 1.0) -> Sampler:
    """SDE-DPM-Solver++(3M): k-diffusion's `sample_dpmpp_3m_sde`.

    `exponential_step` with D = m_0 x0_hat + m_1 d_1 + m_2/2 d_2, the moments of (1 + eta) h
    and d_1, d_2 the first and second differences of the last three x0_hat per step h. Warms
    up through the lower orders; a step to clean data and one from alpha 0 are first order.

    Args:
      schedule: the noise schedule.
      eta: 0 is deterministic, 1 the reverse SDE; may be traced.

    Returns:
      A sampler of weak order 2 that wants one noise array per step; one denoiser call per step. Its
      state is the last two x0_hat and h, HUGE where there is none.

    Raises:
      InputError: eta is negative.
    """
    at_least("eta", eta)

    def init(x, ts):
        none = jnp.asarray(HUGE, float)
        return jnp.zeros_like(x), jnp.zeros_like(x), none, none

    def step(noise, denoise, x, t, s, state):
        x0_1, x0_2, h_1, h_2 = state
        x0 = denoise(x, t).x0
        h = log_step(schedule, t, s)
        in_1, in_2 = _steps_back(h, h_1, h_2)
        first = per_sample(in_1, x) * (x0 - x0_1)
        change = first - per_sample(in_2, x) * (x0_1 - x0_2)
        change = jnp.where(in_2 > 0, change, 0)
        first = first + per_sample(h_1 / (h_1 + h_2), x) * change
        second = per_sample(jnp.where(h < HUGE, h, 0) / (h_1 + h_2), x) * change
        m_0, m_1, m_2 = (per_sample(m, x) for m in moments((1 + eta) * h, 3))
        data = m_0 * x0 + m_1 * first + m_2 / 2 * second
        x = exponential_step(schedule, x, data, t, s, noise[0], eta)
        return x, (x0, x0_1, h.astype(h_1.dtype), h_1)

    return Sampler(init, step, draws=1, stochastic=not is_zero(eta))
