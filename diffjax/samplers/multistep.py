"""Multistep solvers on dy/dr = eps_hat, the coordinates of `runge_kutta`."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from diffjax.samplers.info import described, per_step
from diffjax.samplers.linear_multistep import adams, check_order, linear_multistep
from diffjax.samplers.runge_kutta import eps_at, only_euler, width
from diffjax.types import Sampler, Schedule


@described("k-diffusion's sample_lms", order=lambda order, **_: order, calls=per_step(1))
def lms(schedule: Schedule, order: int = 4) -> Sampler:
    """Adams-Bashforth in r = sigma/alpha on the grid as it is: k-diffusion's `sample_lms`.

    x_s = alpha_s/alpha_t x_t + alpha_s sum_j eps_hat_j (integral of L_j(r) from r_t to r_s).
    It warms up through the lower orders. The step to clean data is of full order too, as in
    the reference, and so is not x0_hat but the polynomial's value at r = 0.

    Args:
      schedule: the noise schedule.
      order: order of accuracy, 1 to 4.

    Returns:
      A deterministic sampler of order 1 to 4, one denoiser call per step.

    Raises:
      InputError: an order that is not 1, 2, 3 or 4.
    """
    check_order(order, 4)

    def weights(ts):
        table = adams(schedule.sigma(ts) / schedule.alpha(ts), order, lambda r, stop: 1.0)
        return schedule.alpha(ts[1:])[:, None] * table[:, 1:]

    return linear_multistep(schedule, order, weights, lambda x0, eps: eps)


# Row k - 1 holds the k-step Adams-Bashforth weights of e_1, e_2, e_3 for equal steps.
EQUAL_STEPS = np.array([[0, 0, 0], [-1 / 2, 0, 0], [-16 / 12, 5 / 12, 0], [-59, 37, -9]])
EQUAL_STEPS[3] /= 24


@described("Liu et al. 2022 (PNDM), Eq. 11-12", order=2, calls=lambda n, **_: n + (n > 1))
def plms(schedule: Schedule) -> Sampler:
    """Pseudo linear multistep, PLMS: Liu et al. 2022 (PNDM), Eq. 11-12.

    x_s = transfer of x_t along e' = (55 e_0 - 59 e_1 + 37 e_2 - 9 e_3)/24. The weights are
    those of equal steps in t, and the transfer holds e' constant in r, hence the order. As in
    the released code of latent diffusion it starts with one Heun step, then formulas of two
    and three e; the step to clean data, and one from alpha 0, are Euler.

    Args:
      schedule: the noise schedule.

    Returns:
      A deterministic sampler of order 2, one denoiser call per step and two in the first.
    """

    def weights(ts):
        t, s = ts[:-1], ts[1:]
        table = jnp.asarray(EQUAL_STEPS[np.minimum(np.arange(t.shape[0]), 3)], t.dtype)
        euler = only_euler(schedule, t, s)
        widths = jnp.where(euler, 0, width(schedule, jnp.where(euler, s, t), s))
        return widths[:, None] * table

    base = linear_multistep(schedule, 4, weights, lambda x0, eps: eps)

    def step(noise, denoise, x, t, s, state):
        x_s, after = base.step(noise, denoise, x, t, s, state)

        def heun():
            change = eps_at(schedule, denoise, x_s, s) - after.past[0]
            return x_s + width(schedule, t, s) / 2 * change

        warm = (state.index > 0) | only_euler(schedule, t, s)
        return lax.cond(warm, lambda: x_s, heun), after

    return Sampler(base.init, step)
