"""Score distillation: samples that are parameters follow a teacher, such as pictures of a scene."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import eps_from_x0, q_sample
from diffjax.distill.teacher import Teacher
from diffjax.losses import split_batch
from diffjax.schedules import logsnr
from diffjax.types import (
    Anyshape,
    Cond,
    LossFn,
    Params,
    PRNGKeyArray,
    Samples,
    Schedule,
    TimeDensity,
    per_sample,
)


def score_distillation(
    generate: Callable[[Params, PRNGKeyArray, Samples, Cond], Samples],
    schedule: Schedule,
    teacher: Teacher,
    density: TimeDensity,
    weighting: Callable[[Anyshape], Anyshape],
) -> LossFn:
    """x . sg(w(logsnr) (eps_hat(x_t) - eps)) for x = generate(...): Poole et al. 2023, Eq. 3 (SDS).

    Its gradient is the mean of w (eps_hat - eps) dx/dparams, without the teacher's derivative. With
    w = alpha/sigma it is that of KL(q(x_t | x) || p(x_t)), the mean over times; their Eq. 4.

    Args:
      generate: (params, key, samples of the batch, cond) -> x, differentiable, such as a renderer
        at a drawn camera; of the samples it may use the shape alone.
      schedule: the noise schedule.
      teacher: frozen -> denoiser, guided or not.
      density: of the times, one without state.
      weighting: logsnr -> w.

    Returns:
      A `LossFn` that is given `frozen`, whose gradient, not its value, means something.
    """

    def loss(params, key, batch, *, frozen, **context):
        like, cond = split_batch(batch)
        own_key, time_key, eps_key = jax.random.split(key, 3)
        x = generate(params, own_key, like, cond)
        still = jax.lax.stop_gradient(x)
        t, importance = density.draw(time_key, x.shape[0], density.init())
        eps = jax.random.normal(eps_key, x.shape, x.dtype)
        x_t = q_sample(schedule, still, t, eps)
        guess = eps_from_x0(schedule, x_t, t, teacher(frozen)(x_t, t, cond).x0)
        weight = per_sample(importance * weighting(logsnr(schedule, t)), x)
        pull = jax.lax.stop_gradient(weight * (guess - eps))
        return jnp.sum(x * pull) / x.shape[0], {}

    return loss
