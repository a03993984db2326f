"""Guidance distillation: one call of a student for two of a guided teacher, at any scale."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample
from diffjax.distill.distance import squared
from diffjax.guidance import classifier_free
from diffjax.losses import split_batch
from diffjax.parameterization import make_denoiser
from diffjax.schedules import logsnr
from diffjax.types import (
    Anyshape,
    Cond,
    Denoiser,
    LossFn,
    Network,
    Parameterization,
    PerSample,
    Prediction,
    Samples,
    Scalar,
    Schedule,
    Time,
    TimeDensity,
)

GuidedTeacher = Callable[[dict, Samples, Time, Cond, PerSample], Samples]
"""(frozen, x_t, t, cond, scale) -> x0_hat."""


def guided_by(teacher: Callable[[dict], Denoiser], null: dict) -> GuidedTeacher:
    """Classifier-free guidance of a teacher at a scale of each sample: Ho & Salimans 2022, Eq. 6.

    x0(null) + scale (x0(cond) - x0(null)), in one call of twice the batch.

    Args:
      teacher: frozen -> denoiser.
      null: name -> null value of each condition that is guided, broadcast to its shape.

    Returns:
      A guided teacher; scale 1 is the conditional one.
    """

    def guided(frozen, x, t, cond, scale):
        return classifier_free(teacher(frozen), scale, null)(x, t, cond).x0

    return guided


def guidance_distillation(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    teacher: GuidedTeacher,
    density: TimeDensity,
    weighting: Callable[[Anyshape], Anyshape],
    scales: tuple[float, float] = (1.0, 5.0),
) -> LossFn:
    """w(logsnr) |x0_hat(x_t, t, scale) - guided x0_hat|^2: Meng et al. 2023, Eq. 4 (stage one).

    Args:
      network: one that reads cond["guidance_scale"] (B,), such as `models.TwoTimes(module,
        ("guidance_scale",))`, begun at the teacher's parameters.
      schedule: the noise schedule of both.
      parameterization: what the student's network predicts.
      teacher: such as `guided_by(teacher_of(...), {"label": classes})`.
      density: of the times, one without state.
      weighting: logsnr -> weight of the squared error of x0.
      scales: scales are drawn uniformly between these two; 1 is no guidance.

    Returns:
      A `LossFn` that is given `frozen`.
    """

    def loss(params, key, batch, *, frozen, **context):
        x0, cond = split_batch(batch)
        time_key, eps_key, scale_key, network_key = jax.random.split(key, 4)
        t, importance = density.draw(time_key, x0.shape[0], density.init())
        x_t = q_sample(schedule, x0, t, jax.random.normal(eps_key, x0.shape, x0.dtype))
        low, high = scales
        scale = jax.random.uniform(scale_key, t.shape, x0.dtype, low, high)
        target = jax.lax.stop_gradient(teacher(frozen, x_t, t, cond, scale))
        student = make_denoiser(network, params, schedule, parameterization, network_key)
        error = squared(student(x_t, t, {**cond, "guidance_scale": scale}).x0 - target)
        return jnp.mean(importance * weighting(logsnr(schedule, t)) * error), {}

    return loss


def at_scale(denoiser: Denoiser, scale: Scalar) -> Denoiser:
    """A denoiser that reads cond["guidance_scale"], at one scale for all samples.

    Args:
      denoiser: the student's.
      scale: may be traced.

    Returns:
      A denoiser without that condition.
    """

    def scaled(x, t, cond) -> Prediction:
        scales = jnp.full(x.shape[:1], scale, x.dtype)
        return denoiser(x, t, {**(cond or {}), "guidance_scale": scales})

    return scaled
