"""The probability flow by an adaptive Runge-Kutta method of diffrax (`diffjax[ode]`)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.samplers.checks import at_least, check_start, count
from diffjax.samplers.flow import angle, angular_flow, radius
from diffjax.samplers.info import described
from diffjax.types import AdaptiveSampler, Array, PyTree, Scalar, Schedule, per_sample

FIRST_STEP = 0.01  # of the way


def import_diffrax() -> Any:
    """The module diffrax, or an InputError that says how to install it."""
    try:
        import diffrax
    except ImportError as error:
        raise InputError('an adaptive ODE needs diffrax: pip install "diffjax[ode]".') from error
    return diffrax


def embedded(relative: Scalar, absolute: Scalar, solver: Any, max_steps: int) -> Any:
    """The solver, Tsit5 by default, after a look at what came with it: `adaptive_ode` has both."""
    diffrax = import_diffrax()
    at_least("relative", relative)
    at_least("absolute", absolute)
    count("max_steps", max_steps)
    solver = diffrax.Tsit5() if solver is None else solver
    if not isinstance(solver, diffrax.AbstractERK):
        raise InputError(f"solver must be an explicit Runge-Kutta method of diffrax; got {solver}.")
    return solver


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
    diffrax, solver = import_diffrax(), embedded(relative, absolute, solver, max_steps)
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


@described("Song et al. 2021, Eq. 13", order=5)
def adaptive_ode(
    schedule: Schedule,
    relative: Scalar = 1e-4,
    absolute: Scalar = 1e-4,
    solver: Any = None,
    max_steps: int = 4096,
) -> AdaptiveSampler:
    """An embedded Runge-Kutta method from t_max to t_min, then x0_hat: Song et al. 2021, Eq. 13.

    diffrax's PID controller chooses the steps, the same ones for the whole batch. It keeps the
    difference of the method's two orders below absolute + relative |z|. The coordinates are
    those of `samplers.flow`, which are finite at zero terminal SNR too.

    Args:
      schedule: the noise schedule.
      relative: relative tolerance per step; may be traced.
      absolute: absolute tolerance per step, in units of the data; may be traced.
      solver: of diffrax, with an error estimate; default `diffrax.Tsit5()`.
      max_steps: attempts after which diffrax raises.

    Returns:
      A deterministic sampler of order 5 that chooses its own steps: call it as in
      `samples, calls = adaptive_ode(schedule)(key, denoiser, x, cond, first)` with x from
      `prior_sample`; key and first are not used. calls are of the denoiser, on the batch.

    Raises:
      InputError: diffrax is missing, a tolerance is negative, max_steps is not a positive
        integer, or the solver is not an explicit Runge-Kutta method.
    """
    solver = embedded(relative, absolute, solver, max_steps)

    def draw(key, denoiser, x, cond=None, first=0):
        check_start(denoiser, x, np.asarray([schedule.t_max]), cond)
        begin, end = jnp.asarray(schedule.t_max), jnp.asarray(schedule.t_min)
        flow = angular_flow(schedule, lambda x, t: denoiser(x, t, cond))
        z = x / per_sample(radius(schedule, begin), x)
        ends = angle(schedule, begin), angle(schedule, end)
        z, calls = solve(flow, z, *ends, relative, absolute, solver, max_steps)
        x = per_sample(radius(schedule, end), x) * z
        return denoiser(x, end, cond).x0, calls + 1

    return draw
