"""The probability flow by an adaptive Runge-Kutta method of diffrax (`diffjax[ode]`)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.samplers.checks import at_least, check_start, count
from diffjax.samplers.flow import angle, angular_flow, radius
from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    InputError,
    PyTree,
    Samples,
    Scalar,
    Schedule,
    per_sample,
)

FIRST_STEP = 0.01  # of the way


def import_diffrax() -> Any:
    """The module diffrax, or an InputError that says how to install it."""
    try:
        import diffrax
    except ImportError as error:
        raise InputError('an adaptive ODE needs diffrax: pip install "diffjax[ode]".') from error
    return diffrax


def solve(
    field: Callable[[PyTree, Scalar], PyTree],
    y: PyTree,
    begin: Scalar,
    end: Scalar,
    relative: Scalar,
    absolute: Scalar,
    solver: Any,
    max_steps: int,
) -> tuple[PyTree, Array]:
    """Integrate dy/dt = field(y, t) from begin to end: `adaptive_ode` has the arguments.

    Returns:
      y at the end, and the number of calls of the field.

    Raises:
      InputError: as for `adaptive_ode`.
    """
    diffrax = import_diffrax()
    at_least("relative", relative)
    at_least("absolute", absolute)
    count("max_steps", max_steps)
    solver = diffrax.Tsit5() if solver is None else solver
    if not isinstance(solver, diffrax.AbstractERK):
        raise InputError(f"solver must be an explicit Runge-Kutta method of diffrax; got {solver}.")
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, _: field(y, t)),
        solver,
        begin,
        end,
        FIRST_STEP * (end - begin),
        y,
        stepsize_controller=diffrax.PIDController(rtol=relative, atol=absolute),
        max_steps=max_steps,
    )
    tableau = solver.tableau
    per_step = tableau.num_stages - tableau.fsal  # the last stage is the next step's first
    calls = tableau.fsal + per_step * solution.stats["num_steps"]
    return jax.tree.map(lambda y: y[-1], solution.ys), jnp.asarray(calls)


def adaptive_ode(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Samples,
    cond: Cond = None,
    relative: Scalar = 1e-4,
    absolute: Scalar = 1e-4,
    solver: Any = None,
    max_steps: int = 4096,
) -> tuple[Samples, Array]:
    """An embedded Runge-Kutta method from t_max to t_min, then x0_hat: Song et al. 2021, Eq. 13.

    The steps, one for the whole batch, are chosen by diffrax's PID controller so that the
    difference of the method's two orders stays below absolute + relative |z|, in the
    coordinates of `samplers.flow`, which are finite at zero terminal SNR too.

    Args:
      denoiser: (x_t, t, cond) -> Prediction.
      schedule: the noise schedule.
      x: noise at t_max, from `prior_sample`.
      cond: condition of each sample, or None.
      relative: relative tolerance per step; may be traced.
      absolute: absolute tolerance per step, in units of the data; may be traced.
      solver: of diffrax, with an error estimate; default `diffrax.Tsit5()`.
      max_steps: attempts after which diffrax raises.

    Returns:
      Samples, and the number of denoiser calls on the batch.

    Raises:
      InputError: diffrax is missing, a tolerance is negative, max_steps is not a positive
        integer, or the solver is not an explicit Runge-Kutta method.
    """
    check_start(denoiser, x, np.asarray([schedule.t_max]), cond)
    first, last = jnp.asarray(schedule.t_max), jnp.asarray(schedule.t_min)
    flow = angular_flow(schedule, lambda x, t: denoiser(x, t, cond))
    z = x / per_sample(radius(schedule, first), x)
    ends = angle(schedule, first), angle(schedule, last)
    z, calls = solve(flow, z, *ends, relative, absolute, solver, max_steps)
    x = per_sample(radius(schedule, last), x) * z
    return denoiser(x, last, cond).x0, calls + 1
