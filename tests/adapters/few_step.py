"""Few-step targets: how `check_few_step.py` calls them."""

import jax.numpy as jnp

from diffjax import distill, schedules
from diffjax.types import Prediction, Schedule


def _bound(x0_hat):
    return lambda x, t: Prediction(x0_hat(x, t))


def _progressive_target(x0_hat, alpha, sigma, z_t, t, middle, s):
    schedule = Schedule(alpha, sigma, lambda logsnr: jnp.zeros_like(logsnr), 0.0, 1.0)
    return distill.progressive_target(schedule, _bound(x0_hat), z_t, t, middle, s)


def _heun_step(x0_hat, x, t, s):
    return distill.heun_step(schedules.edm(), _bound(x0_hat), x, t, s)


def _mean_flow_target(u, x, r, t, v):
    return distill.mean_flow_target(lambda x, t, s: u(x, s, t), x, t, r, v)


FUNCTIONS = {
    "progressive_target": _progressive_target,
    "consistency_grid": distill.consistency_grid,
    "consistency_distribution": distill.consistency_distribution,
    "heun_step": _heun_step,
    "mean_flow_target": _mean_flow_target,
}
