"""Between two encodings, and from one image to another along the difference of two flows."""

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample, velocity_from_x0
from diffjax.errors import InputError
from diffjax.types import Array, BoundDenoiser, Grid, Samples, Schedule, Time, per_sample


def slerp(a: Samples, b: Samples, weight: Time) -> Samples:
    """Spherical interpolation of each sample: Shoemake 1985; Song et al. 2021 (DDIM), appendix D.5.

    sin((1 - w) theta)/sin(theta) a + sin(w theta)/sin(theta) b, theta the angle between a and b.
    Where they are parallel it is linear. Two normal noises give one of about their norm.

    Args:
      a: at weight 0.
      b: at weight 1, a's shape.
      weight: w in [0, 1], a scalar or one per sample.

    Returns:
      a's shape.
    """
    axes = tuple(range(1, a.ndim))
    dot = jnp.sum(a * b, axes) / jnp.sqrt(jnp.sum(a**2, axes) * jnp.sum(b**2, axes))
    theta = jnp.arccos(jnp.clip(dot, -1, 1))
    parallel = jnp.sin(theta) < 1e-5
    safe = jnp.where(parallel, 1, theta)
    left = jnp.where(parallel, 1 - weight, jnp.sin((1 - weight) * safe) / jnp.sin(safe))
    right = jnp.where(parallel, weight, jnp.sin(weight * safe) / jnp.sin(safe))
    return per_sample(left, a) * a + per_sample(right, a) * b


def mix(encodings: Array, weights: Array) -> Samples:
    """A weighted sum of independent noises that is normal again: sum w x / sqrt(sum w^2).

    Args:
      encodings: (K, B, ...) standard normal.
      weights: (K,), not all 0.

    Returns:
      (B, ...).
    """
    weights = weights / jnp.sqrt(jnp.sum(weights**2))
    return jnp.tensordot(weights, encodings, 1)


def flow_edit(
    schedule: Schedule,
    source: BoundDenoiser,
    target: BoundDenoiser,
    x: Samples,
    ts: Grid,
    noise: Array,
) -> Samples:
    """FlowEdit: an ODE from an image to its edit, without inversion: Kulikov et al. 2025, Alg. 1.

    With z the edit so far, x_t the image noised to t and z_t = z + x_t - x, dz/dt =
    v_target(z_t, t) - v_source(x_t, t), the mean over several noises.

    Args:
      schedule: `rectified_flow`.
      source: the denoiser bound to what the image is, guided or not.
      target: the denoiser bound to what it is to be.
      x: images (B, ...).
      ts: decreasing times, the last clean; the first sets how much may change.
      noise: standard normal (n, averages, B, ...).

    Returns:
      The edited images, x's shape.

    Raises:
      InputError: the noise is for another number of steps.
    """
    ts = jnp.asarray(ts)
    if noise.shape[0] != ts.shape[0] - 1:
        raise InputError(
            f"flow_edit needs noise for each of the {ts.shape[0] - 1} steps; got {noise.shape[0]}."
        )

    def body(z, given):
        t, s, draws = given

        def difference(eps):
            x_t = q_sample(schedule, x, t, eps)
            z_t = z + x_t - x
            towards = velocity_from_x0(schedule, z_t, t, target(z_t, t).x0)
            return towards - velocity_from_x0(schedule, x_t, t, source(x_t, t).x0)

        return z + (s - t) * jnp.mean(jax.lax.map(difference, draws), 0), None

    return jax.lax.scan(body, x, (ts[:-1], ts[1:], noise))[0]
