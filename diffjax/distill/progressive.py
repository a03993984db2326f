"""Progressive distillation: each student takes in one step what its teacher takes in two."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample
from diffjax.distill.distance import squared
from diffjax.distill.flow_map import jump, x0_of_jump
from diffjax.distill.teacher import Teacher
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.parameterization import check_trainable, make_denoiser
from diffjax.samplers.checks import count
from diffjax.schedules import clean_time, logsnr
from diffjax.types import (
    Anyshape,
    BoundDenoiser,
    LossFn,
    Network,
    Parameterization,
    PerSample,
    Prediction,
    Samples,
    Schedule,
    Time,
)


def progressive_target(
    schedule: Schedule, denoise: BoundDenoiser, x: Samples, t: Time, middle: Time, s: Time
) -> Samples:
    """The x0 with which one DDIM step does what two of the teacher do.

    Salimans & Ho 2022, Algorithm 2.

    Args:
      schedule: the noise schedule.
      denoise: the teacher, (x_t, t) -> Prediction.
      x: the sample at t.
      t: where the steps begin, a scalar or (B,).
      middle: between t and s.
      s: where they end, before `middle`.

    Returns:
      The target of x0_hat(x, t), x's shape.
    """
    half = jump(schedule, x, t, middle, denoise(x, t).x0)
    whole = jump(schedule, half, middle, s, denoise(half, middle).x0)
    return x0_of_jump(schedule, x, t, s, whole)


def progressive_distillation(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    teacher: Teacher,
    steps: int,
    weighting: Callable[[Anyshape], Anyshape],
) -> LossFn:
    """w(logsnr) |x0_hat(x_t, t) - target|^2 at the times i/N of N student steps.

    Salimans & Ho 2022, Algorithm 2.

    Args:
      network: the student's, of one time.
      schedule: the noise schedule of both.
      parameterization: what the student's network predicts; x0 or v, where alpha(t_max) is 0.
      teacher: frozen -> denoiser, trained for 2 N steps.
      steps: N, at least 1.
      weighting: `weighting.truncated_snr` or `weighting.snr_plus_one`, as in the paper.

    Returns:
      A `LossFn` that is given `frozen`. The student is sampled with `ddim` on `even_times`.

    Raises:
      InputError: steps is not a positive integer.
    """
    count("steps of progressive_distillation", steps)
    ts = even_times(schedule, 2 * steps)[::-1]

    def loss(params, key, batch, *, frozen, **context):
        x0, cond = split_batch(batch)
        index_key, eps_key, network_key = jax.random.split(key, 3)
        i = jax.random.randint(index_key, x0.shape[:1], 1, steps + 1)
        times = ts[2 * i], ts[2 * i - 1], ts[2 * i - 2]
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        student = make_denoiser(network, params, schedule, parameterization, network_key)
        known, own = (lambda x, t, d=d: d(x, t, cond) for d in (teacher(frozen), student))
        return jnp.mean(_errors(schedule, weighting, own, known, x0, eps, times)), {}

    return loss


def _errors(schedule, weighting, own, known, x0, eps, times) -> PerSample:
    """Weighted squared errors (B,) of a student to the target of its teacher, both bound."""
    t, middle, s = times
    x_t = q_sample(schedule, x0, t, eps)
    target = progressive_target(schedule, known, x_t, t, middle, s)
    error = squared(own(x_t, t).x0 - jax.lax.stop_gradient(target))
    return weighting(logsnr(schedule, t)) * error


def progressive_stages(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    teacher: Teacher,
    steps: int,
    stage: int,
    weighting: Callable[[Anyshape], Anyshape],
) -> LossFn:
    """`progressive_distillation` of all students, from steps/2 to 1, in one run.

    Salimans & Ho 2022, Algorithm 2. At the first step of each stage but the first the student so
    far becomes the teacher, so that a stage is a function of the step and of the context alone.

    Args:
      network: of teacher and students, of one time.
      schedule: the noise schedule of all.
      parameterization: what the network predicts; x0 or v, where alpha(t_max) is 0.
      teacher: frozen -> denoiser, the first one.
      steps: of the first teacher, a power of two.
      stage: training steps of each student, at least 1; the last goes on where there are more.
      weighting: as for `progressive_distillation`.

    Returns:
      A `LossFn` that is given `frozen`, whose context has `iteration`, the training steps taken,
      and `teacher_params`, shaped as the parameters; aux has the student's `steps`.

    Raises:
      InputError: steps is no power of two, stage is no positive integer, or the parameterization
        is not finite at t_max.
    """
    check_trainable(schedule, parameterization, (schedule.t_max,))
    count("training steps of a stage", stage)
    stages = stages_of(steps)
    clean = clean_time(schedule)

    def loss(params, key, batch, *, frozen, iteration, teacher_params, **context):
        x0, cond = split_batch(batch)
        index_key, eps_key, network_key = jax.random.split(key, 3)
        number = jnp.minimum(jnp.asarray(iteration) // stage, stages - 1)
        first_of_stage = jnp.asarray(iteration) == number * stage
        past = jax.tree.map(
            lambda old, new: jnp.where(first_of_stage, jax.lax.stop_gradient(new), old),
            teacher_params,
            params,
        )
        n = steps // 2 ** (number + 1)
        i = jax.random.randint(index_key, x0.shape[:1], 1, n + 1)
        times = (clean + (schedule.t_max - clean) * (i - part) / n for part in (0, 0.5, 1))
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        before = make_denoiser(network, past, schedule, parameterization)
        student = make_denoiser(network, params, schedule, parameterization, network_key)

        def known(x, t):
            asked = (lambda: teacher(frozen)(x, t, cond).x0, lambda: before(x, t, cond).x0)
            return Prediction(jax.lax.cond(number == 0, *asked))

        own = lambda x, t: student(x, t, cond)  # noqa: E731
        errors = _errors(schedule, weighting, own, known, x0, eps, times)
        kept = {"iteration": jnp.asarray(iteration) + 1, "teacher_params": past}
        return jnp.mean(errors), {"steps": n, "context": kept}

    return loss


def stages_of(steps: int) -> int:
    """The number of students from steps/2 to 1.

    Raises:
      InputError: steps is not 2, 4, 8, ...
    """
    if steps < 2 or steps & (steps - 1):
        raise InputError(f"halving to 1 step needs 2, 4, 8, ... steps of the teacher; got {steps}.")
    return steps.bit_length() - 1


def even_times(schedule: Schedule, steps: int) -> Samples:
    """The grid of `steps` steps even in time from t_max to clean: t = i/N of Salimans & Ho 2022.

    Args:
      schedule: the noise schedule, with a finite clean time.
      steps: number of steps, at least 1.

    Returns:
      steps + 1 decreasing times.
    """
    return jnp.linspace(schedule.t_max, clean_time(schedule), steps + 1)
