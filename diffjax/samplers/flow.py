"""The probability flow in its angle, which is finite for every schedule and at every time.

With tan(phi) = sigma/alpha and z = x / sqrt(alpha^2 + sigma^2), x on the unit circle of
signal and noise, the flow is dz/dphi = v_hat (Salimans & Ho 2022, appendix D; Song et al.
2021, DDIM, Eq. 14): pi/2 is pure noise, 0 clean data.
"""

from collections.abc import Callable

import jax.numpy as jnp

from diffjax.types import Array, BoundDenoiser, Samples, Scalar, Schedule, Time, per_sample


def angle(schedule: Schedule, t: Time) -> Array:
    """phi = arctan(sigma/alpha), in radians from 0 (clean) to pi/2 (alpha 0)."""
    t = jnp.asarray(t)
    return jnp.arctan2(schedule.sigma(t), schedule.alpha(t))


def radius(schedule: Schedule, t: Time) -> Array:
    """sqrt(alpha^2 + sigma^2), 1 where the schedule preserves variance: x = radius z."""
    t = jnp.asarray(t)
    return jnp.hypot(schedule.alpha(t), schedule.sigma(t))


def time_of_angle(schedule: Schedule, phi: Scalar) -> Array:
    """The time at which arctan(sigma/alpha) is phi, at most t_max."""
    cosine = jnp.maximum(jnp.cos(phi), 0)
    t = schedule.t_from_logsnr(2 * (jnp.log(cosine) - jnp.log(jnp.sin(phi))))
    return jnp.minimum(t, schedule.t_max)


def angular_flow(
    schedule: Schedule, denoise: BoundDenoiser
) -> Callable[[Samples, Scalar], Samples]:
    """The probability flow dz/dphi = (cos(phi) z - x0_hat) / sin(phi).

    Args:
      schedule: the noise schedule.
      denoise: the model, bound to its condition.

    Returns:
      (z, phi) -> dz/dphi, z's shape, for phi above 0; one denoiser call.
    """

    def flow(z, phi):
        t = time_of_angle(schedule, phi)
        x0 = denoise(per_sample(radius(schedule, t), z) * z, t).x0
        return (jnp.cos(phi) * z - x0) / jnp.sin(phi)

    return flow
