"""sCM: consistency in continuous time, in the angle of TrigFlow (Lu & Song 2025).

With tan(phi) = sigma/alpha on a schedule that preserves variance, x_phi = cos(phi) x0 + sin(phi) z,
a consistency function is f = cos(phi) x - sin(phi) F, and the flow is dx/dphi = E[cos(phi) z -
sin(phi) x0 | x]. Data are taken to be of standard deviation 1, as the noise is.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import q_sample, value_and_rate
from diffjax.distill.distance import squared
from diffjax.distill.teacher import Velocity, velocity_of_data
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.parameterization import make_denoiser
from diffjax.samplers.flow import angle
from diffjax.types import (
    Array,
    LossFn,
    Network,
    Parameterization,
    PerSample,
    Samples,
    Scalar,
    Schedule,
    TimeDensity,
    per_sample,
)


def tangent(
    phi: PerSample, x: Samples, F: Samples, rate: Samples, velocity: Samples, warm: Scalar
) -> Samples:
    """g = cos(phi) df/dphi, with the part that is unstable early on scaled by r.

    g = -cos^2 (F - dx/dphi) - r cos sin (x + dF/dphi): Lu & Song 2025, Algorithm 1.

    Args:
      phi: angles (B,) in [0, pi/2].
      x: the sample at phi.
      F: the network's v there.
      rate: its total derivative dF/dphi along the flow.
      velocity: dx/dphi.
      warm: r in [0, 1].

    Returns:
      x's shape.
    """
    cos, sin = per_sample(jnp.cos(phi), x), per_sample(jnp.sin(phi), x)
    return -(cos**2) * (F - velocity) - warm * cos * sin * (x + rate)


def normalised(g: Samples, c: float = 0.1) -> Samples:
    """g / (|g| + c), the norm over a sample: Lu & Song 2025, section 4.1."""
    norm = jnp.sqrt(jnp.sum(g**2, axis=tuple(range(1, g.ndim)), keepdims=True))
    return g / (norm + c)


def tangent_warmup(iteration: Array, warmup: int, held: int = 0) -> Array:
    """r of an iteration: 0 while it is held, then up to 1 over `warmup` steps; 0 is at once."""
    since = iteration - held
    return jnp.clip(since / warmup, 0.0, 1.0) if warmup else jnp.where(since < 0, 0.0, 1.0)


def scm(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    velocity: Velocity | None = None,
    warmup: int = 10_000,
    normalise: Callable[[Array], Array] = normalised,
    weighting: Callable[[PerSample], PerSample] = jnp.ones_like,
    held: int = 0,
) -> LossFn:
    """|F - sg(F + g)|^2, sCT from data and sCD from a teacher: Lu & Song 2025, Eq. 8, Algorithm 1.

    Without their adaptive weight, of which `weighting` takes the place.

    Args:
      network: of one time.
      schedule: one that preserves variance, such as `gvp`.
      parameterization: `predict_v`, with which the network's output is F; c_noise of moderate
        slope, for the derivative in time passes through it.
      density: of the times, one without state; the paper's angle has a lognormal tangent, which
        `edm_lognormal(schedule, -1.0, 1.4)` draws.
      velocity: default that of the data (sCT), or `velocity_of_teacher` (sCD).
      warmup: steps over which r grows from 0 to 1; 0 is r = 1 at once.
      normalise: of the tangent.
      weighting: phi -> weight (B,).
      held: steps before those, with r = 0, where the network learns the velocity alone. A trained
        network needs some to get used to another c_noise than it was trained with.

    Returns:
      A `LossFn` whose context has `iteration`, the training steps taken; `frozen` is passed on to
      the velocity.

    Raises:
      InputError: the schedule does not preserve variance.
    """
    _check_circle(schedule)
    velocity = velocity_of_data(schedule) if velocity is None else velocity

    def loss(params, key, batch, *, frozen=None, iteration=0, **context):
        x0, cond = split_batch(batch)
        time_key, eps_key, network_key = jax.random.split(key, 3)
        t, _ = density.draw(time_key, x0.shape[0], density.init())
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        x_t = q_sample(schedule, x0, t, eps)
        phi, turn = value_and_rate(lambda t: angle(schedule, t), t)
        dx = velocity(frozen, x0, eps, x_t, t, cond)
        denoiser = make_denoiser(network, params, schedule, parameterization, network_key)

        def output(x, t):
            phi = angle(schedule, t)
            x0_hat = denoiser(x, t, cond).x0
            return (per_sample(jnp.cos(phi), x) * x - x0_hat) / per_sample(jnp.sin(phi), x)

        F, rate = jax.jvp(output, (x_t, t), (dx, jnp.ones_like(t)))
        rate, dx = (value / per_sample(turn, x0) for value in (rate, dx))
        warm = tangent_warmup(jnp.asarray(iteration), warmup, held)
        g = normalise(tangent(phi, x_t, jax.lax.stop_gradient(F), rate, dx, warm))
        target = jax.lax.stop_gradient(F + g)
        value = jnp.mean(weighting(phi) * squared(F - target))
        return value, {"context": {"iteration": jnp.asarray(iteration) + 1}}

    return loss


def _check_circle(schedule: Schedule) -> None:
    """Refuse a schedule that does not preserve variance."""
    t = np.linspace(schedule.t_min, schedule.t_max, 5)
    with jax.ensure_compile_time_eval():
        squares = np.asarray(schedule.alpha(t)) ** 2 + np.asarray(schedule.sigma(t)) ** 2
    if not np.allclose(squares, 1, atol=1e-4):
        raise InputError(
            "sCM needs a schedule with alpha^2 + sigma^2 = 1; got one whose sum is "
            f"{squares.min():.3g} to {squares.max():.3g}. Use schedules.gvp()."
        )
