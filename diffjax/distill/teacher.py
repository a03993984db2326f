"""What a student learns from: a frozen teacher, or the data itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample, value_and_rate, velocity_from_x0
from diffjax.errors import InputError
from diffjax.parameterization import make_denoiser, predict_velocity
from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    LossFn,
    Network,
    Parameterization,
    PRNGKeyArray,
    Samples,
    Schedule,
    Time,
    TimeDensity,
    per_sample,
)

SCALE = "guidance_scale"

Teacher = Callable[[dict], Denoiser]
"""From the frozen parameters by name to a denoiser."""

Velocity = Callable[[dict | None, Samples, Samples, Samples, Time, Cond], Samples]
"""(frozen, x0, eps, x_t, t, cond) -> dx_t/dt, in expectation the flow's."""


def teacher_of(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    guide: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
    name: str = "teacher",
) -> Teacher:
    """The teacher whose parameters a loss is given as frozen[name].

    Args:
      network: of the teacher.
      schedule: the noise schedule that it was trained with.
      parameterization: what its network predicts.
      guide: from denoiser to denoiser, such as classifier-free guidance at a fixed scale.
      name: of its parameters among the frozen ones.

    Returns:
      frozen -> denoiser.

    Raises:
      InputError: when called without parameters of that name.
    """

    def teacher(frozen):
        if name not in (frozen or {}):
            raise InputError(
                f"this loss learns from the frozen parameters {name!r}; got {sorted(frozen or {})}."
                " Name the teacher's run in the experiment's frozen parameters."
            )
        return guide(make_denoiser(network, frozen[name], schedule, parameterization))

    return teacher


def velocity_of_data(schedule: Schedule) -> Velocity:
    """alpha' x0 + sigma' eps, whose mean given x_t is the flow's velocity (Lipman et al. 2023)."""

    def velocity(frozen, x0, eps, x_t, t, cond):
        _, alpha_rate = value_and_rate(schedule.alpha, t)
        _, sigma_rate = value_and_rate(schedule.sigma, t)
        return per_sample(alpha_rate, x0) * x0 + per_sample(sigma_rate, x0) * eps

    return velocity


def velocity_of_teacher(schedule: Schedule, teacher: Teacher) -> Velocity:
    """The velocity of the teacher's probability flow at x_t."""

    def velocity(frozen, x0, eps, x_t, t, cond):
        x0_hat = teacher(frozen)(x_t, t, cond).x0
        return jax.lax.stop_gradient(velocity_from_x0(schedule, x_t, t, x0_hat))

    return velocity


def guided_data(schedule: Schedule, unguided: Teacher, null: dict[str, Array]) -> Velocity:
    """v + (w - 1) (v(x_t | cond) - v(x_t | null)), v of data, at w in cond["guidance_scale"].

    In expectation it is the velocity of classifier-free guidance. So is the target of Geng et al.
    2025 (MeanFlow), Eq. 19, w v + (1 - w) v(x_t | null), whose noise is w times as large.

    Args:
      schedule: the noise schedule.
      unguided: frozen -> the denoiser of both guesses, which may read the scale, 1 there: a
        teacher's, or the student's as it is, see `with_itself`. Asked once, with twice the batch.
      null: null value of each condition that is guided.

    Returns:
      A velocity.
    """
    of_data = velocity_of_data(schedule)

    def velocity(frozen, x0, eps, x_t, t, cond):
        scale = cond[SCALE]
        plain = {**cond, SCALE: jnp.ones_like(scale)}
        dropped = {n: jnp.broadcast_to(value, cond[n].shape) for n, value in null.items()}
        both = jax.tree.map(lambda *pair: jnp.concatenate(pair), plain, {**plain, **dropped})
        twice = lambda z: jnp.concatenate([z, z])  # noqa: E731
        guesses = jnp.split(unguided(frozen)(twice(x_t), twice(t), both).x0, 2)
        given, without = (velocity_from_x0(schedule, x_t, t, guess) for guess in guesses)
        v = of_data(None, x0, eps, x_t, t, cond)
        return jax.lax.stop_gradient(v + per_sample(scale - 1, v) * (given - without))

    return velocity


def with_itself(loss: LossFn) -> LossFn:
    """A loss whose velocity may ask the network as it is, without gradient, as frozen["itself"]."""

    def asked(params, key, batch, *, frozen=None, **context):
        own = {"itself": jax.lax.stop_gradient(params)}
        return loss(params, key, batch, frozen={**(frozen or {}), **own}, **context)

    return asked


def noised_towards(schedule: Schedule, velocity: Velocity | None = None):
    """(frozen, x0, t, eps, cond) -> x_t, and the x0 that the velocity there leads to.

    That is x0 itself for the velocity of the data, so that `jump` from x_t to s keeps its noise.

    Args:
      schedule: the noise schedule.
      velocity: what the flow follows from x_t; default `velocity_of_data`.

    Returns:
      A function of a batch, t (B,) with sigma(t) > 0.
    """

    velocity = velocity_of_data(schedule) if velocity is None else velocity

    def drawn(frozen, x0, t, eps, cond):
        x_t = q_sample(schedule, x0, t, eps)
        v, c = velocity(frozen, x0, eps, x_t, t, cond), predict_velocity(schedule, t)
        return x_t, per_sample(c.c_skip, x0) * x_t + per_sample(c.c_out, x0) * v

    return drawn


def draw_intervals(
    density: TimeDensity, key: PRNGKeyArray, batch: int, together: float
) -> tuple[Array, Array]:
    """Two times of one density in order, t >= s, of which a share is one and the same.

    Geng et al. 2025 (MeanFlow), section 4.1.

    Args:
      density: of each time, one without a state; its importance is not used.
      key: consumed whole.
      batch: number of pairs.
      together: share of pairs with s = t, in [0, 1].

    Returns:
      t and s, each (batch,).
    """
    first, second, same = jax.random.split(key, 3)
    a, _ = density.draw(first, batch, density.init())
    b, _ = density.draw(second, batch, density.init())
    t, s = jnp.maximum(a, b), jnp.minimum(a, b)
    return t, jnp.where(jax.random.uniform(same, (batch,)) < together, t, s)
