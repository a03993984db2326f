"""AMED-Solver: a midpoint method whose mid-times and step lengths are learned."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.samplers.info import but_last, described
from diffjax.samplers.loop import sample_path
from diffjax.samplers.runge_kutta import midpoint
from diffjax.types import Array, Denoiser, Grid, LossFn, Sampler, Schedule


class Amed(NamedTuple):
    """What `amed` learns, each a scalar or one number per step (n,).

    Attributes:
      logit: sigmoid of it is the fraction of the step, in log r, at which the slope is
        taken; 0 is the geometric mean.
      scale: factor on the slope, c_n of the paper; 1 is none.
    """

    logit: Array | float = 0.0
    scale: Array | float = 1.0


@described("Zhou et al. 2024", order=2, calls=but_last(2))
def amed(schedule: Schedule, params: Amed | None = None) -> Sampler:
    """AMED-Solver with parameters per step: Zhou et al. 2024.

    x_s = alpha_s/alpha_t x_t + c alpha_s (r_s - r_t) eps_hat(x_m, m): by the mean value theorem
    some time m in the step and length c make this nearly exact on a trajectory that stays in a
    plane. The paper's network predicts m and c for each sample; here they are arrays, fitted by
    `amed_loss`. The step to clean data, and one from alpha 0, are Euler.

    Args:
      schedule: the noise schedule.
      params: default `Amed()`, which is `dpm_2`; may be traced.

    Returns:
      A deterministic sampler of order 2, two denoiser calls per step and one in the last.
    """
    params = Amed() if params is None else params

    def init(x, ts):
        steps = ts.shape[0] - 1
        for name, value in params._asdict().items():
            if jnp.shape(value) not in ((), (steps,)):
                raise InputError(
                    f"{name} of amed must be a scalar or one number for each of the {steps} steps "
                    f"of the grid; got shape {jnp.shape(value)}. Use the grid it was fitted on."
                )
        per_step = jax.tree.map(lambda value: jnp.broadcast_to(value, (steps,)), params)
        return jnp.asarray(0), per_step

    def step(noise, denoise, x, t, s, state):
        index, per_step = state
        solver = midpoint(schedule, jax.nn.sigmoid(per_step.logit[index]), per_step.scale[index])
        return solver.step(noise, denoise, x, t, s, ())[0], (index + 1, per_step)

    return Sampler(init, step)


def amed_loss(schedule: Schedule, denoiser: Denoiser, ts: Grid) -> LossFn:
    """Squared distance to a fine trajectory: the distillation of Zhou et al. 2024.

    The solver runs freely over ts from the trajectory's first point and is compared at all
    others, so that gradients see how early steps change later ones (the paper stops them
    between steps).

    Args:
      schedule: the noise schedule.
      denoiser: the trained denoiser, not trained here.
      ts: the grid to be fitted, n + 1 decreasing times.

    Returns:
      A `LossFn` of `Amed` params, with batch {"x": (B, n + 1, ...)}, the trajectories at ts,
      and the conditions beside it. Such as, with `fine` a grid of which ts is every m-th time,
      `jnp.moveaxis(sample_path(key, denoiser, heun(schedule), x, fine)[::m], 0, 1)`.
    """

    def loss(params, key, batch):
        fine, cond = split_batch(batch)
        path = sample_path(key, denoiser, amed(schedule, params), fine[:, 0], ts, cond)
        return jnp.mean((jnp.moveaxis(path, 0, 1) - fine)[:, 1:] ** 2), {}

    return loss
