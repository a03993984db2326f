"""The trained model that a student learns from: how it is named, opened, checked and guided."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import conditioning
from diffjax.distill.guidance import GuidedTeacher
from diffjax.distill.other_schedule import denoiser_on
from diffjax.distill.teacher import SCALE, Teacher, Velocity, guided_data, velocity_of_teacher
from diffjax.errors import InputError
from diffjax.experiment import Model, check_same_tree
from diffjax.guidance import classifier_free
from diffjax.types import Params, Prediction, Schedule

Opening = Callable[[str], tuple[Model, Callable[[], Params]]]
"""path -> (a trained model, () -> its parameters), such as `run.weights.trained`."""


class Teaching(NamedTuple):
    """What a student is taught by: fields are as of `teaching`."""

    teacher: str | None
    scales: tuple[float, float]


def teaching(
    teacher: str | None = "runs/digits", scales: tuple[float, float] = (1.0, 2.0)
) -> Teaching:
    """Flags of a student.

    Args:
      teacher: workdir of the trained model that the student begins at and learns from; the flags
        of the network must be the teacher's. None trains from data alone, where that can be.
      scales: lowest and highest guidance scale that the student is trained for.
    """
    return Teaching(teacher, scales)


class FrozenTeacher(NamedTuple):
    """A trained model that a loss learns from.

    Attributes:
      load: () -> its parameters, checked; a value of `Experiment.frozen`, under "teacher".
      guided: its guided x0_hat with its finish, at a scale of each sample.
      denoiser: the same at the scales in cond["guidance_scale"], at 1 where there are none.
      unguided: as it was trained, at any scale.
    """

    load: Callable[[], Params]
    guided: GuidedTeacher
    denoiser: Teacher
    unguided: Teacher


def frozen_teacher(base: Model, path: str | None, opened: Opening) -> FrozenTeacher:
    """The teacher of a student of `base`, opened only when it is trained.

    Args:
      base: the model that the teacher must be: of its shape, schedule and network.
      path: of the teacher.
      opened: path -> the teacher.

    Returns:
      The teacher.

    Raises:
      InputError: no path; when opened, it is another model, says in what.
    """
    if path is None:
        raise InputError("this method learns from a trained model; give --teacher WORKDIR.")
    opened = functools.cache(functools.partial(opened, path))

    def load():
        model, parameters = opened()
        check_model(base, model)
        wanted = jax.eval_shape(base.init, jax.random.key(0))
        check_same_tree(found := parameters(), wanted, "the teacher's parameters")
        return found

    def plain(frozen):
        return opened()[0].denoiser(frozen["teacher"])

    def guided(frozen, x, t, cond, scale):
        null = conditioning.nulls(base.conditions, frozen)
        guide = classifier_free(plain(frozen), scale, null) if null else plain(frozen)
        return base.finish(guide)(x, t, cond).x0

    def denoiser(frozen):
        def at_given(x, t, cond):
            cond = dict(cond or {})
            scale = cond.pop(SCALE, jnp.ones(x.shape[:1], x.dtype))
            return Prediction(guided(frozen, x, t, cond or None, scale))

        return at_given

    def unguided(frozen):
        known = plain(frozen)
        return lambda x, t, cond: known(x, t, {n: v for n, v in (cond or {}).items() if n != SCALE})

    return FrozenTeacher(load, guided, denoiser, unguided)


def check_model(base: Model, model: Model) -> None:
    """Refuse a teacher of other data or noise, before its parameters are read.

    Args:
      base: the model that it must be.
      model: the teacher's.

    Raises:
      InputError: another shape of the data, or another schedule.
    """
    if model.example.shape != base.example.shape:
        raise InputError(
            f"the teacher draws samples of shape {model.example.shape}, the student of "
            f"{base.example.shape}; give a teacher of the student's data."
        )
    if not same_schedule(base.schedule, model.schedule):
        raise InputError(
            "the teacher was trained with another noise schedule than the student's; give one "
            "of the schedule in this config, or change the config's."
        )


def same_schedule(a: Schedule, b: Schedule) -> bool:
    """Whether two schedules have the same times and the same alpha and sigma at them."""
    if (a.t_min, a.t_max) != (b.t_min, b.t_max):
        return False
    with jax.ensure_compile_time_eval():
        t = np.linspace(a.t_min, a.t_max, 9)
        scales = [np.asarray([s.alpha(t), s.sigma(t)]) for s in (a, b)]
    return bool(np.allclose(*scales, rtol=1e-4, atol=1e-6))


def velocity_for(model: Model, base: Model, teacher: FrozenTeacher | None) -> Velocity:
    """The guided velocity that a flow map is taught at the scales in cond["guidance_scale"].

    Args:
      model: the student, whose schedule may be another than the teacher's.
      base: the model that the teacher is.
      teacher: whose velocity it is; without one that of `guided_data_for`.

    Returns:
      The velocity.
    """
    if teacher is None:
        return guided_data_for(model, base, None)
    schedule = model.schedule
    return velocity_of_teacher(
        schedule, lambda frozen: denoiser_on(teacher.denoiser(frozen), base.schedule, schedule)
    )


def guided_data_for(model: Model, base: Model, teacher: FrozenTeacher | None) -> Velocity:
    """The velocity of data, guided at the scales in cond["guidance_scale"].

    Args:
      model: the student, of the base's schedule where there is a teacher.
      base: the model that the teacher is.
      teacher: who is asked; without one the student itself, whose loss wants
        `with_itself` and dropped conditions then.

    Returns:
      The velocity.
    """
    itself = lambda frozen: model.denoiser(frozen["itself"])  # noqa: E731
    null = conditioning.nulls(base.conditions, {})
    return guided_data(model.schedule, teacher.unguided if teacher else itself, null)
