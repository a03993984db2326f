"""From an image to the noise that makes it: DDIM's encoding and edit-friendly DDPM noise maps."""

import jax
import jax.numpy as jnp

from diffjax.diffusion import eps_from_x0, posterior_variance, q_sample
from diffjax.editing.walk import walk
from diffjax.samplers.ddim import ddim
from diffjax.types import Array, BoundDenoiser, Cond, Denoiser, Grid, Samples, Schedule


def ddim_inversion(
    schedule: Schedule, denoiser: Denoiser, x: Samples, ts: Grid, cond: Cond = None
) -> Samples:
    """Encode by DDIM with the noise predicted at the level that is being gone to.

    From s to the noisier t, eps = eps_hat(x_s, t), x_t = alpha_t (x_s - sigma_s eps)/alpha_s +
    sigma_t eps: Mokady et al. 2023, Eq. 3. It can begin at clean data, where `samplers.encode`,
    which predicts where x is, cannot.

    Args:
      schedule: the noise schedule.
      denoiser: (x_t, t, cond) -> Prediction.
      x: data at ts[-1].
      ts: decreasing times, the last clean or not.
      cond: condition of each sample, or None.

    Returns:
      The sample at ts[0].
    """
    ts = jnp.asarray(ts)[::-1]

    def body(x, interval):
        s, t = interval
        eps = eps_from_x0(schedule, x, t, denoiser(x, t, cond).x0)
        x0 = (x - schedule.sigma(s) * eps) / schedule.alpha(s)
        return q_sample(schedule, x0, t, eps), None

    return jax.lax.scan(body, x, (ts[:-1], ts[1:]))[0]


def ddpm_inversion(
    schedule: Schedule, denoiser: Denoiser, x0: Samples, ts: Grid, noise: Array, cond: Cond = None
) -> tuple[Samples, Array]:
    """Edit-friendly noise maps: Huberman-Spiegelglas et al. 2024, Algorithm 1.

    The image is noised to every level alone; z_i is the noise that leads an ancestral step from one
    level to the next. `replay` takes them back to the image, or to an edit of it.

    Args:
      schedule: the noise schedule.
      denoiser: (x_t, t, cond) -> Prediction.
      x0: images (B, ...).
      ts: n + 1 decreasing times; the last level stands for the image itself.
      noise: standard normal (n, B, ...), of ts[0] first.
      cond: condition of each sample, or None.

    Returns:
      x at ts[0], and the maps (n, B, ...) in the order of the steps.
    """
    ts = jnp.asarray(ts)
    levels = jax.vmap(lambda t, z: q_sample(schedule, x0, t, z))(ts[:-1], noise)

    def body(x, given):
        after, t, s = given
        mean, std = _ancestral(schedule, lambda x, t: denoiser(x, t, cond), x, t, s)
        safe = jnp.where(std > 0, std, 1)
        z = jnp.where(std > 0, (after - mean) / safe, 0)
        return mean + std * z, z  # with the rounding of a replay

    afters = jnp.concatenate([levels[1:], x0[None]])
    return levels[0], jax.lax.scan(body, levels[0], (afters, ts[:-1], ts[1:]))[1]


def replay(
    schedule: Schedule, denoiser: Denoiser, x: Samples, ts: Grid, maps: Array, cond: Cond = None
) -> Samples:
    """Ancestral steps from x at ts[0] with the noise of `ddpm_inversion`.

    Args:
      schedule: the noise schedule.
      denoiser: with other guidance or another condition, an edit.
      x: the sample at ts[0].
      ts: the grid of the inversion.
      maps: (n, B, ...).
      cond: condition of each sample, or None.

    Returns:
      The sample at ts[-1].
    """
    steps = ddim(schedule, eta=1.0)
    return walk(jax.random.key(0), denoiser, steps, x, ts, cond, noise=maps[:, None])


def _ancestral(schedule: Schedule, denoise: BoundDenoiser, x: Samples, t: Array, s: Array):
    """Mean and standard deviation of DDIM's step with eta 1."""
    x0 = denoise(x, t).x0
    eps = eps_from_x0(schedule, x, t, x0)
    variance = jnp.maximum(posterior_variance(schedule, t, s), 0)
    direction = jnp.sqrt(jnp.maximum(schedule.sigma(s) ** 2 - variance, 0))
    return schedule.alpha(s) * x0 + direction * eps, jnp.sqrt(variance)
