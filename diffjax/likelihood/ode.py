"""The likelihood of the probability flow, with an exact or estimated divergence.

The flow is integrated in its angle (`samplers.flow`): finite and smooth for every schedule. The
prior N(0, sigma_T^2 I) is not the noised data's own marginal: per sample the density is off by
about mean(x0)/sigma_T alpha_T nats per dimension (0.01 for `edm()`), on average by its square.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffjax.diffusion import sample_keys
from diffjax.errors import InputError
from diffjax.samplers.adaptive_ode import solve
from diffjax.samplers.checks import check_grid
from diffjax.samplers.flow import angle, angular_flow, radius
from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    Grid,
    PerSample,
    PRNGKeyArray,
    Samples,
    Scalar,
    Schedule,
)

Probes = Callable[[PRNGKeyArray, tuple[int, ...]], Array]
"""(key, shape of one sample) -> probes (m, *shape) with E[sum_i v_i v_i^T] = I, so that
sum_i v_i . J v_i is an unbiased estimate of the trace of J."""

Step = Callable[[Callable, Array, Array, Array], Array]
"""(f, y, t, h) -> y at t + h: one step on dy/dt = f(y, t), for a pytree y."""


class Density(NamedTuple):
    """What the probability flow says of data.

    Attributes:
      log_density: (B,) in nats.
      latent: x at ts[0], what `encode` finds.
    """

    log_density: Array
    latent: Array


# --- probes -----------------------------------------------------------------------------


def rademacher(m: int = 1) -> Probes:
    """m probes of random signs: Hutchinson 1990; of all probes the least variance."""

    def draw(key, shape):
        return jax.random.rademacher(key, (m, *shape), float) / np.sqrt(m)

    return draw


def gaussian(m: int = 1) -> Probes:
    """m standard-normal probes: Grathwohl et al. 2019 (FFJORD), Eq. 7."""

    def draw(key, shape):
        return jax.random.normal(key, (m, *shape)) / np.sqrt(m)

    return draw


def exact(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    """The unit vectors: the trace itself, for one Jacobian product per dimension."""
    d = int(np.prod(shape))
    return jnp.eye(d).reshape(d, *shape)


# --- fixed steps ------------------------------------------------------------------------


def _ahead(y, h, *slopes):
    """y + h times a weighted mean of slopes, leaf by leaf; slopes are (weight, slope)."""
    for weight, slope in slopes:
        y = jax.tree.map(lambda a, b, w=weight: a + h * w * b, y, slope)
    return y


def heun_step(f, y, t, h):
    """One step of Heun's method, order 2, two calls of f. A `Step`."""
    first = f(y, t)
    second = f(_ahead(y, h, (1, first)), t + h)
    return _ahead(y, h, (1 / 2, first), (1 / 2, second))


def rk4_step(f, y, t, h):
    """One step of the classical Runge-Kutta method, order 4, four calls of f. A `Step`."""
    first = f(y, t)
    second = f(_ahead(y, h, (1 / 2, first)), t + h / 2)
    third = f(_ahead(y, h, (1 / 2, second)), t + h / 2)
    last = f(_ahead(y, h, (1, third)), t + h)
    return _ahead(y, h, (1 / 6, first), (1 / 3, second), (1 / 3, third), (1 / 6, last))


# --- likelihood -------------------------------------------------------------------------


def _check_ends(schedule: Schedule, ts: Array | np.ndarray) -> None:
    check_grid(ts)
    if isinstance(ts, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():  # a known grid is checked under jit too
        singular = bool((schedule.sigma(ts[-1]) == 0) | (schedule.alpha(ts[0]) == 0))
    if singular:
        raise InputError(
            "the density of the probability flow needs noise at the last time and signal at the "
            "first; drop the clean end, e.g. grids.karras(schedule, n)[:-1], and begin below a "
            "zero terminal SNR."
        )


def ode_log_density(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    schedule: Schedule,
    x: Samples,
    ts: Grid,
    cond: Cond = None,
    probes: Probes | None = None,
    step: Step = rk4_step,
) -> Density:
    """log p(x) by the instantaneous change of variables: Song et al. 2021 (score SDE), Eq. 39.

    log p(x) = log N(x_T; 0, sigma_T^2 I) + int div v dphi - D log(radius/radius_T), along the
    flow dz/dphi = v of `samplers.flow` from x to x_T, in one `lax.scan`. One draw of probes
    serves the whole path of a sample.

    Args:
      key: of the probes, consumed whole; sample i depends on it and i alone.
      denoiser: (x_t, t, cond) -> Prediction, differentiable in x_t.
      schedule: the noise schedule.
      x: real-valued data (B, ...), taken as the sample at ts[-1].
      ts: decreasing times from t_max to a noisy one, `grids.karras(schedule, n)[:-1]`; the
        density is that of the noised data at ts[-1].
      cond: condition of each sample, or None.
      probes: of the divergence: `rademacher(m)` (default, m = 1), `gaussian(m)` or `exact`.
      step: `rk4_step` or `heun_step`.

    Returns:
      A `Density`.

    Raises:
      InputError: ts does not decrease, ends clean, or begins without signal.
    """
    ts = jnp.asarray(ts)
    _check_ends(schedule, ts)
    rates = _rates(key, denoiser, schedule, x, cond, probes)

    def body(state, interval):
        phi, after = interval
        return step(rates, state, phi, after - phi), None

    phis = angle(schedule, ts[::-1]).astype(x.dtype)
    state, _ = lax.scan(body, _start(schedule, x, ts[-1]), (phis[:-1], phis[1:]))
    return _finish(schedule, state, ts[-1], ts[0])


def adaptive_log_density(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    schedule: Schedule,
    x: Samples,
    cond: Cond = None,
    probes: Probes | None = None,
    relative: Scalar = 1e-5,
    absolute: Scalar = 1e-5,
    solver: Any = None,
    max_steps: int = 4096,
) -> tuple[Density, Array]:
    """`ode_log_density` from t_min to t_max with steps chosen by diffrax (`diffjax[ode]`).

    Args:
      key: of the probes, consumed whole.
      denoiser: (x_t, t, cond) -> Prediction, differentiable in x_t.
      schedule: the noise schedule, with signal at t_max.
      x: real-valued data (B, ...), taken as the sample at t_min.
      cond: condition of each sample, or None.
      probes: of the divergence, as for `ode_log_density`.
      relative: relative tolerance per step; Song et al. 2021 use 1e-5 for both.
      absolute: absolute tolerance per step.
      solver: explicit Runge-Kutta of diffrax, default `diffrax.Tsit5()`.
      max_steps: attempts after which diffrax raises.

    Returns:
      A `Density`, and the number of denoiser calls, each with its Jacobian products.

    Raises:
      InputError: a zero terminal SNR, or as for `samplers.adaptive_ode`.
    """
    first, last = jnp.asarray(schedule.t_max), jnp.asarray(schedule.t_min)
    _check_ends(schedule, np.asarray([schedule.t_max, schedule.t_min]))
    rates = _rates(key, denoiser, schedule, x, cond, probes)
    ends = (angle(schedule, t).astype(x.dtype) for t in (last, first))
    start = _start(schedule, x, last)
    state, calls = solve(rates, start, *ends, relative, absolute, solver, max_steps)
    return _finish(schedule, state, last, first), calls


def _rates(key, denoiser, schedule, x, cond, probes):
    """((z, log-volume), phi) -> their rates along the flow."""
    probes = rademacher() if probes is None else probes
    draw = jax.vmap(lambda key: probes(key, tuple(x.shape[1:])), out_axes=1)
    directions = draw(sample_keys(key, x.shape[0])).astype(x.dtype)
    flow = angular_flow(schedule, lambda x, t: denoiser(x, t, cond))

    def rates(state, phi):
        slope, push = jax.linearize(lambda z: flow(z, phi), state[0])
        return slope, jnp.sum(_inner(directions, jax.vmap(push)(directions)), axis=0)

    return rates


def _start(schedule: Schedule, x: Array, t: Array) -> tuple[Array, Array]:
    """x as z, and no change of volume yet."""
    return x / radius(schedule, t).astype(x.dtype), jnp.zeros(x.shape[0], x.dtype)


def _finish(schedule: Schedule, state: tuple[Array, Array], t: Array, last: Array) -> Density:
    """The density at t from z and the log-volume at the last time."""
    z, divergence = state
    before, after = (radius(schedule, time).astype(z.dtype) for time in (t, last))
    change = int(np.prod(z.shape[1:])) * jnp.log(after / before)
    return Density(_log_prior(schedule, after * z, last) + divergence + change, after * z)


def _inner(a: Array, b: Array) -> Array:
    """Inner products over everything but the two leading axes."""
    return jnp.sum((a * b).reshape(*a.shape[:2], -1), axis=2)


def _log_prior(schedule: Schedule, x: Samples, t: Array) -> PerSample:
    """log N(x; 0, sigma(t)^2 I) in nats."""
    sigma = schedule.sigma(t).astype(x.dtype)
    flat = x.reshape(x.shape[0], -1)
    normaliser = flat.shape[1] * (np.log(2 * np.pi) / 2 + jnp.log(sigma))
    return -jnp.sum(flat**2, axis=1) / (2 * sigma**2) - normaliser
