"""DPM-Solver: exponential integrators in half the log-SNR, lambda = log(alpha/sigma).

DPM-Solver interpolates eps_hat, DPM-Solver++ interpolates x0_hat. `dpm_solver` and
`dpmpp_2s` look inside the step, the others at the steps before. Steps that end at clean
data or begin at zero SNR have an infinite h and are first order.
"""

import jax.numpy as jnp

from diffjax.diffusion import eps_from_x0
from diffjax.samplers.info import but_last, described, per_step
from diffjax.samplers.linear_multistep import check_order, linear_multistep, windows
from diffjax.samplers.runge_kutta import (
    between,
    dpm_2,
    eps_at,
    euler,
    single_step,
    transfer,
    width,
)
from diffjax.schedules import logsnr
from diffjax.types import Array, Sampler, Schedule

# --- within one step ---------------------------------------------------------------------


@described(
    "Lu et al. 2022",
    order=lambda order, **_: order,
    calls=lambda n, order, **_: order * (n - 1) + 1,
)
def dpm_solver(schedule: Schedule, order: int = 3) -> Sampler:
    """Singlestep DPM-Solver-1, -2 (r1 = 1/2) or -3 (r1 = 1/3, r2 = 2/3): Lu et al. 2022.

    Order 1 is Euler (Eq. 3.7) and order 2 is `dpm_2` (Alg. 1).

    Args:
      schedule: the noise schedule.
      order: order of accuracy and denoiser calls per step, 1 to 3.

    Returns:
      A deterministic sampler of order 1 to 3, `order` denoiser calls per step and one in the last,
      which is an Euler step.

    Raises:
      InputError: an order that is not 1, 2 or 3.
    """
    check_order(order, 3)
    return (euler, dpm_2, _dpm_solver_3)[order - 1](schedule)


def _dpm_solver_3(schedule: Schedule) -> Sampler:
    """DPM-Solver-3: Lu et al. 2022, Alg. 2 with r1 = 1/3, r2 = 2/3.

    x_s = Euler - sigma_s/r2 ((e^h - 1)/h - 1) (eps at r2 - eps at t), and the same towards r2
    with the eps at r1.
    """

    def bend(t, s):
        """sigma_s ((e^h - 1)/h - 1), with sigma_s (e^h - 1) = -width; 0 where h is rounded to 0."""
        h = (logsnr(schedule, s) - logsnr(schedule, t)) / 2
        none = h == 0
        slope = -width(schedule, t, s) / jnp.where(none, 1, h)
        return jnp.where(none, 0, slope - schedule.sigma(s))

    def correction(denoise, x, t, s, eps):
        first, second = between(schedule, t, s, 1 / 3), between(schedule, t, s, 2 / 3)
        change = eps_at(schedule, denoise, transfer(schedule, x, t, first, eps), first) - eps
        x_second = transfer(schedule, x, t, second, eps) - 2 * bend(t, second) * change
        change = eps_at(schedule, denoise, x_second, second) - eps
        return -3 / 2 * bend(t, s) * change

    return single_step(schedule, correction)


@described("Lu et al. 2023, Alg. 1 with r = 1/2", order=2, calls=but_last(2))
def dpmpp_2s(schedule: Schedule) -> Sampler:
    """Singlestep DPM-Solver++(2S): Lu et al. 2023, Alg. 1 with r = 1/2.

    x_s = sigma_s/sigma_t x_t + alpha_s (1 - e^-h) x0_hat at the middle of the step in lambda,
    where x is Euler's. It is k-diffusion's `sample_dpmpp_2s_ancestral` with eta 0.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler of order 2, two denoiser calls per step and one in the last.
    """

    def correction(denoise, x, t, s, eps):
        m = between(schedule, t, s, 0.5)
        x0 = denoise(transfer(schedule, x, t, m, eps), m).x0
        return width(schedule, t, s) * (eps_from_x0(schedule, x, t, x0) - eps)

    return single_step(schedule, correction)


# --- through the steps before ------------------------------------------------------------


@described("Lu et al. 2023, Alg. 2", order=2, calls=per_step(1))
def dpmpp_2m(schedule: Schedule) -> Sampler:
    """DPM-Solver++(2M): Lu et al. 2023, Alg. 2.

    x_s = sigma_s/sigma_t x_t + alpha_s (1 - e^-h) D with h = lambda_s - lambda_t and
    D = x0_hat + h/(2 h_before) (x0_hat - x0_hat before). The first step, a step to clean
    data (h infinite) and the one after a zero SNR are first order.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler of order 2, one denoiser call per step.
    """
    return dpmpp_multistep(schedule, order=2)


@described("Lu et al. 2023, Alg. 2", order=lambda order, **_: min(order, 2), calls=per_step(1))
def dpmpp_multistep(schedule: Schedule, order: int = 2) -> Sampler:
    """DPM-Solver++(1M), (2M) or (3M) in the midpoint form: Lu et al. 2023, Alg. 2.

    It warms up through the lower orders. (3M) is that of the released code, whose D2 is the
    second divided difference without the factor 2 of a second derivative: smaller errors than
    (2M), but also order 2 in the limit.

    Args:
      schedule: the noise schedule.
      order: x0_hats in the formula, the present one included, 1 to 3.

    Returns:
      A deterministic sampler of order 1 to 2, one denoiser call per step.

    Raises:
      InputError: an order that is not 1, 2 or 3.
    """
    check_order(order, 3)

    def weights(ts):
        nodes, usable, stop = windows(logsnr(schedule, ts) / 2, 3)
        table = _midpoint_weights(nodes, usable & (jnp.arange(3) < order)[None, :], stop)
        return schedule.alpha(ts[1:])[:, None] * table[:, : order - 1]

    return linear_multistep(schedule, order, weights, lambda x0, eps: x0)


def _midpoint_weights(nodes: Array, usable: Array, stop: Array) -> Array:
    """Weights (n, 2) of m_1 - m_0 and m_2 - m_0 in x_s/alpha_s.

    With slopes D10 = h (m_0 - m_1)/h_0 and D11 = h (m_1 - m_2)/h_1 the step adds
    (1 - e^-h)/2 D10, or for three points phi2 D1 - phi3 D2, where D2 = (D10 - D11)/(r0 + r1),
    D1 = D10 + r0 D2, phi2 = (e^-h - 1)/h + 1 and phi3 = phi2/h - 1/2.
    """
    h = stop - nodes[:, 0]
    r0 = jnp.where(usable[:, 1], nodes[:, 0] - nodes[:, 1], 1) / h
    r1 = jnp.where(usable[:, 2], nodes[:, 1] - nodes[:, 2], 1) / h
    phi2 = jnp.expm1(-h) / h + 1
    bend = (phi2 * r0 - (phi2 / h - 1 / 2)) / (r0 + r1)
    two = jnp.stack([jnp.expm1(-h) / (2 * r0), jnp.zeros_like(h)], axis=1)
    three = jnp.stack([-(phi2 + bend) / r0 - bend / r1, bend / r1], axis=1)
    return jnp.where(usable[:, 2:], three, jnp.where(usable[:, 1:2], two, 0))
