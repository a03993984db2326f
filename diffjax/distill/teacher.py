"""What a student learns from: a frozen teacher, or the data itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import value_and_rate, velocity_from_x0
from diffjax.errors import InputError
from diffjax.parameterization import make_denoiser
from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    Network,
    Parameterization,
    PRNGKeyArray,
    Samples,
    Schedule,
    Time,
    TimeDensity,
    per_sample,
)

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
