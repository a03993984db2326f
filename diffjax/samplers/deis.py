"""DEIS: Adams-Bashforth on eps_hat as a polynomial in log r."""

import jax.numpy as jnp

from diffjax.samplers.info import described, per_step
from diffjax.samplers.linear_multistep import adams, check_order, linear_multistep
from diffjax.schedules import logsnr
from diffjax.types import Sampler, Schedule


@described("Zhang & Chen 2023, Eq. 14-15", order=lambda order, **_: order, calls=per_step(1))
def deis(schedule: Schedule, order: int = 3) -> Sampler:
    """DEIS, the log-rho variant: Zhang & Chen 2023, Eq. 14-15.

    x_s = alpha_s/alpha_t x_t + alpha_s sum_j eps_hat_j (integral of L_j(log r) from r_t to r_s
    over r), r = sigma/alpha, L the Lagrange basis on the last `order` noise levels. It warms up
    through the lower orders; a step to clean data, and one from or after zero SNR, are of lower
    order, since log r is infinite there.

    Args:
      schedule: the noise schedule.
      order: order of accuracy, 1 to 3.

    Returns:
      A deterministic sampler of order 1 to 3, one denoiser call per step.

    Raises:
      InputError: an order that is not 1, 2 or 3.
    """
    check_order(order, 3)

    def weights(ts):
        # In lambda = -log r, dr = -e^-lambda dlambda.
        table = adams(logsnr(schedule, ts) / 2, order, lambda u, stop: -jnp.exp(-u))
        return schedule.alpha(ts[1:])[:, None] * table[:, 1:]

    return linear_multistep(schedule, order, weights, lambda x0, eps: eps)
