"""Runge-Kutta on the probability flow in the coordinates of Karras et al. 2022.

With y = x/alpha and r = sigma/alpha the flow is dy/dr = eps_hat for every schedule. Euler
in (y, r) is x_s = alpha_s x0_hat + sigma_s eps_hat, exact at clean data and finite at zero
terminal SNR; every method here is Euler plus a correction by differences of eps.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from diffjax.diffusion import eps_from_x0, q_sample
from diffjax.errors import InputError, check_finite
from diffjax.samplers.checks import known
from diffjax.samplers.info import but_last, described, per_step
from diffjax.schedules import logsnr
from diffjax.types import Anyshape, Array, BoundDenoiser, Sampler, Samples, Scalar, Schedule

Correction = Callable[[BoundDenoiser, Array, Array, Array, Array], Array]
"""(denoise, x, t, s, eps_hat at t) -> what is added to Euler's x_s."""

# --- parts that the other solvers share --------------------------------------------------


def only_euler(schedule: Schedule, t: Anyshape | float, s: Anyshape | float) -> Array:
    """Whether t -> s ends at clean data or begins at alpha 0, where r or log r is infinite."""
    return (schedule.sigma(s) == 0) | (schedule.alpha(t) == 0)


def width(schedule: Schedule, t: Anyshape | float, s: Anyshape | float) -> Array:
    """alpha_s (r_s - r_t): how far x_s moves per unit of eps; needs alpha(t) > 0."""
    return schedule.sigma(s) - schedule.alpha(s) * schedule.sigma(t) / schedule.alpha(t)


def between(schedule: Schedule, t: Scalar, s: Scalar, fraction: Scalar) -> Array:
    """The time a fraction of the way from t to s in log r, geometric in the noise level."""
    start = logsnr(schedule, t)
    return schedule.t_from_logsnr(start + fraction * (logsnr(schedule, s) - start))


def transfer(schedule: Schedule, x: Samples, t: Scalar, s: Scalar, eps: Samples) -> Samples:
    """Move x from t to s along eps: Liu et al. 2022 (PNDM), Eq. 11; needs alpha(t) > 0.

    x_s = alpha_s/alpha_t x_t + (sigma_s - alpha_s sigma_t/alpha_t) eps.

    Args:
      schedule: the noise schedule.
      x: the sample at t.
      t: where it is.
      s: where it goes.
      eps: the noise to follow, x's shape.

    Returns:
      The sample at s, x's shape.
    """
    return schedule.alpha(s) / schedule.alpha(t) * x + width(schedule, t, s) * eps


def eps_at(schedule: Schedule, denoise: BoundDenoiser, x: Array, t: Scalar) -> Array:
    """The denoiser's eps_hat for x at t, with sigma(t) > 0."""
    return eps_from_x0(schedule, x, t, denoise(x, t).x0)


def single_step(schedule: Schedule, correction: Correction) -> Sampler:
    """Euler plus a correction, which is left out where `only_euler` says so.

    Args:
      schedule: the noise schedule.
      correction: (denoise, x, t, s, eps) -> an array of x's shape.

    Returns:
      A deterministic sampler without state.
    """

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0
        eps = eps_from_x0(schedule, x, t, x0)
        predicted = q_sample(schedule, x0, s, eps)

        def corrected():
            return predicted + correction(denoise, x, t, s, eps)

        return lax.cond(only_euler(schedule, t, s), lambda: predicted, corrected), state

    return Sampler(lambda x, ts: (), step)


# --- the methods -------------------------------------------------------------------------


@described("Karras et al. 2022, Alg. 1 without its lines 6-8", order=1, calls=per_step(1))
def euler(schedule: Schedule) -> Sampler:
    """Euler: Karras et al. 2022, Alg. 1 without its lines 6-8.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler of order 1, one denoiser call per step.
    """

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0
        return q_sample(schedule, x0, s, eps_from_x0(schedule, x, t, x0)), state

    return Sampler(lambda x, ts: (), step)


@described("Karras et al. 2022, Alg. 1", order=2, calls=but_last(2))
def heun(schedule: Schedule) -> Sampler:
    """Heun: Karras et al. 2022, Alg. 1.

    x_s = Euler + alpha_s (r_s - r_t)/2 (eps_hat at s - eps_hat at t). The step to clean data,
    and one from alpha 0, where r is infinite, are Euler.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler of order 2, two denoiser calls per step and one in the last.
    """

    def correction(denoise, x, t, s, eps):
        ahead = eps_at(schedule, denoise, transfer(schedule, x, t, s, eps), s)
        return width(schedule, t, s) / 2 * (ahead - eps)

    return single_step(schedule, correction)


@described("after Lu et al. 2022 (DPM-Solver), Alg. 1", order=2, calls=but_last(2))
def midpoint(schedule: Schedule, fraction: Scalar = 0.5, scale: Scalar = 1.0) -> Sampler:
    """One slope within the step, at any place: after Lu et al. 2022 (DPM-Solver), Alg. 1.

    x_s = alpha_s/alpha_t x_t + scale alpha_s (r_s - r_t) eps_hat(x_m, m), where x_m is Euler's
    at r_m = r_t^(1 - fraction) r_s^fraction.

    Args:
      schedule: the noise schedule.
      fraction: where the slope is taken, 0 at t and 1 at s; may be a traced value.
      scale: factor on the slope; may be a traced value.

    Returns:
      A deterministic sampler of order 2, two denoiser calls per step and one in the last.

    Raises:
      InputError: fraction is not in [0, 1], or scale is not finite.
    """
    if known(fraction) and not 0 <= fraction <= 1:
        raise InputError(f"fraction, the place of the slope, must be in [0, 1]; got {fraction}.")
    check_finite("midpoint", scale=scale)

    def correction(denoise, x, t, s, eps):
        m = between(schedule, t, s, fraction)
        slope = eps_at(schedule, denoise, transfer(schedule, x, t, m, eps), m)
        return width(schedule, t, s) * (scale * slope - eps)

    return single_step(schedule, correction)


@described("Lu et al. 2022, Alg. 1", order=2, calls=but_last(2))
def dpm_2(schedule: Schedule) -> Sampler:
    """Midpoint at the geometric mean of the noise levels: Lu et al. 2022, Alg. 1.

    x_s = alpha_s/alpha_t x_t + alpha_s (r_s - r_t) eps_hat at r_m = sqrt(r_t r_s). This is
    DPM-Solver-2 with r1 = 1/2 and, without noise, k-diffusion's `sample_dpm_2`. The step to
    clean data, and one from alpha 0, are Euler.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler of order 2, two denoiser calls per step and one in the last.
    """
    return midpoint(schedule)


@described("Kutta 1901", order=4, calls=but_last(4))
def rk4(schedule: Schedule) -> Sampler:
    """The classical Runge-Kutta method, on dy/dr = eps_hat: Kutta 1901.

    x_s = alpha_s/alpha_t x_t + alpha_s (r_s - r_t)/6 (e1 + 2 e2 + 2 e3 + e4), where e2 and e3
    are taken at the arithmetic mean of r_t and r_s. The step to clean data, and one from
    alpha 0, are Euler.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler of order 4, four denoiser calls per step and one in the last.
    """

    def correction(denoise, x, t, s, eps):
        r_t, r_s = (schedule.sigma(u) / schedule.alpha(u) for u in (t, s))
        m = schedule.t_from_logsnr(-2 * jnp.log((r_t + r_s) / 2))

        def slope(along, u):
            return eps_at(schedule, denoise, transfer(schedule, x, t, u, along), u)

        second = slope(eps, m)
        third = slope(second, m)
        change = 2 * (second - eps) + 2 * (third - eps) + (slope(third, s) - eps)
        return width(schedule, t, s) / 6 * change

    return single_step(schedule, correction)
