"""Flow maps: what takes x_t to x_s in one call, and how a network of two times is one.

Whatever a network predicts, its x0_hat(x_t, t, s) makes the step
x_s = (sigma_s/sigma_t) x_t + (alpha_s - alpha_t sigma_s/sigma_t) x0_hat, the form of CTM (Kim et
al. 2024, Eq. 5) and IMM (Zhou et al. 2025, section 3): the identity at s = t, x0_hat at a clean
s. With `predict_velocity` on `rectified_flow` it is x_t - (t - s) F, and F is MeanFlow's average
velocity; with `predict_v` in the angle it is sCM's cos(t - s) x_t - sin(t - s) F.
"""

from collections.abc import Callable

import flax.struct
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import eps_from_x0, velocity_from_x0
from diffjax.parameterization import make_denoiser
from diffjax.samplers.flow import angle
from diffjax.types import (
    Array,
    BoundDenoiser,
    Cond,
    Denoiser,
    FlowMap,
    Network,
    Parameterization,
    Params,
    Prediction,
    PRNGKeyArray,
    Samples,
    Schedule,
    Time,
    per_sample,
)


@flax.struct.dataclass
class Interval:
    """A denoiser's time t together with the earlier time s that it is asked to jump to.

    Attributes:
      t: where x is, a scalar or (B,).
      s: where it goes, t's shape.
    """

    t: Time
    s: Time


def jump(schedule: Schedule, x: Samples, t: Time, s: Time, x0: Samples) -> Samples:
    """x_s on the line through x_t and x0_hat: a DDIM step (Song et al. 2021, Eq. 12, eta 0).

    x_s = (sigma_s/sigma_t) x_t + (alpha_s - alpha_t sigma_s/sigma_t) x0.

    Args:
      schedule: the noise schedule.
      x: the sample at t.
      t: where it is, a scalar or (B,), with sigma(t) > 0.
      s: where it goes, t's shape.
      x0: the prediction of clean data, x's shape.

    Returns:
      The sample at s: x at s = t, x0 at a clean s.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    ratio = schedule.sigma(s) / schedule.sigma(t)
    rest = schedule.alpha(s) - ratio * schedule.alpha(t)
    return per_sample(ratio, x) * x + per_sample(rest, x) * x0


def x0_of_jump(schedule: Schedule, x: Samples, t: Time, s: Time, x_s: Samples) -> Samples:
    """The x0 whose `jump` leads from x at t to x_s: Salimans & Ho 2022, Algorithm 2.

    x0 = (x_s - (sigma_s/sigma_t) x_t) / (alpha_s - alpha_t sigma_s/sigma_t). Arguments as for
    `jump`, with s other than t.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    ratio = schedule.sigma(s) / schedule.sigma(t)
    rest = schedule.alpha(s) - ratio * schedule.alpha(t)
    return (x_s - per_sample(ratio, x) * x) / per_sample(rest, x)


def heun_step(schedule: Schedule, denoise: BoundDenoiser, x: Samples, t: Time, s: Time) -> Samples:
    """One step of Heun's method on the probability flow, for times of each sample.

    Karras et al. 2022, Alg. 1, in y = x/alpha and r = sigma/alpha: the Euler step, corrected by
    alpha_s (r_s - r_t)/2 times the change of eps_hat. A step to clean data, and one from alpha 0,
    is Euler.

    Args:
      schedule: the noise schedule.
      denoise: (x_t, t) -> Prediction.
      x: the sample at t.
      t: where it is, a scalar or (B,), with sigma(t) > 0.
      s: where it goes, t's shape.

    Returns:
      The sample at s, x's shape.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    x0 = denoise(x, t).x0
    euler = jump(schedule, x, t, s, x0)
    corrected = (schedule.sigma(s) > 0) & (schedule.alpha(t) > 0)
    ahead = jnp.where(corrected, s, t)  # any noisy time where there is no correction
    there = jump(schedule, x, t, ahead, x0)
    change = eps_from_x0(schedule, there, ahead, denoise(there, ahead).x0)
    change = change - eps_from_x0(schedule, x, t, x0)
    alpha = jnp.where(corrected, schedule.alpha(t), 1)
    width = schedule.sigma(ahead) - schedule.alpha(ahead) * schedule.sigma(t) / alpha
    width = jnp.where(corrected, width, 0)
    return euler + per_sample(width / 2, x) * change


def two_time_denoiser(
    network: Network,
    params: Params,
    schedule: Schedule,
    parameterization: Parameterization,
    key: PRNGKeyArray | None = None,
) -> Denoiser:
    """A denoiser that may be asked about an `Interval`, where it answers the x0_hat of its jump.

    The network is given the second time as cond["until"] (B,), the angle arctan(sigma/alpha) of s
    from 0 (clean) to 10 (noise alone). Asked about a time t alone it takes s = t, so that every
    sampler of denoisers, and guidance, work with it as they are.

    Args:
      network: of a `models.TwoTimes`, or another that reads cond["until"].
      params: its parameters.
      schedule: the noise schedule.
      parameterization: what the network predicts.
      key: for dropout when training; None when sampling.

    Returns:
      A denoiser of (x_t, t or Interval(t, s), cond).
    """
    denoiser = make_denoiser(network, params, schedule, parameterization, key)

    def two_times(x, t, cond):
        t, s = (t.t, t.s) if isinstance(t, Interval) else (t, t)
        until = jnp.broadcast_to(angle(schedule, s) * (20 / np.pi), x.shape[:1])
        return denoiser(x, t, {**(cond or {}), "until": until.astype(x.dtype)})

    return two_times


def flow_map(schedule: Schedule, denoiser: Denoiser) -> FlowMap:
    """The flow map of a denoiser that answers an `Interval`.

    Args:
      schedule: the noise schedule.
      denoiser: such as `two_time_denoiser`, guided or not.

    Returns:
      (x_t, t, s, cond) -> x_s, with sigma(t) > 0.
    """

    def move(x, t, s, cond):
        return jump(schedule, x, t, s, denoiser(x, Interval(t, s), cond).x0)

    return move


def as_denoiser(schedule: Schedule, move: FlowMap, limit: Denoiser) -> Denoiser:
    """A flow map in the form of a denoiser that answers an `Interval`: for known maps.

    Args:
      schedule: the noise schedule.
      move: the flow map.
      limit: the denoiser, which answers where s is t.

    Returns:
      A denoiser of (x_t, t or Interval(t, s), cond), the inverse of `flow_map`.
    """

    def denoiser(x, t, cond):
        if not isinstance(t, Interval):
            return limit(x, t, cond)
        same = jnp.broadcast_to(t.t == t.s, x.shape[:1])
        s = jnp.where(same, t.t / 2, jnp.broadcast_to(t.s, x.shape[:1]))  # any other time
        x0 = x0_of_jump(schedule, x, jnp.broadcast_to(t.t, s.shape), s, move(x, t.t, s, cond))
        return Prediction(jnp.where(per_sample(same, x), limit(x, t.t, cond).x0, x0))

    return denoiser


def average_velocity(
    schedule: Schedule, denoiser: Denoiser
) -> Callable[[Array, Array, Array, Cond], Array]:
    """u(x_t, t, s, cond), the velocity of the straight line that `jump` follows from t.

    On `rectified_flow` it is (x_t - x_s)/(t - s), the average velocity of Geng et al. 2025
    (MeanFlow), Eq. 3; at s = t it is the velocity of the probability flow for every schedule.

    Args:
      schedule: the noise schedule.
      denoiser: one that answers an `Interval`.

    Returns:
      A function of (x_t, t, s, cond) with sigma(t) > 0, x's shape.
    """

    def velocity(x, t, s, cond):
        return velocity_from_x0(schedule, x, t, denoiser(x, Interval(t, s), cond).x0)

    return velocity
