"""SDEdit: noise a guide part of the way, and denoise it."""

from diffjax.diffusion import q_sample
from diffjax.editing.walk import walk
from diffjax.errors import InputError
from diffjax.types import Array, Cond, Denoiser, Grid, PRNGKeyArray, Sampler, Samples, Schedule


def strength_steps(n: int, strength: float) -> int:
    """Steps of n that are skipped at a strength: n - floor(n strength), at least 0.

    The rule of Stable Diffusion's image-to-image.

    Args:
      n: steps of the whole grid.
      strength: share of the grid that is run, in (0, 1]; 1 starts from noise alone.

    Returns:
      How many of the first steps are left out.

    Raises:
      InputError: the strength is outside (0, 1], or leaves no step.
    """
    if not 0 < strength <= 1:
        raise InputError(f"strength must be above 0 and at most 1; got {strength}.")
    return n - min(int(n * strength), n)


def sdedit(
    key: PRNGKeyArray,
    schedule: Schedule,
    denoiser: Denoiser,
    sampler: Sampler,
    guide: Samples,
    ts: Grid,
    strength: float,
    start_noise: Array,
    cond: Cond = None,
    noise: Array | None = None,
) -> Samples:
    """Noise a guide to the time that its strength says, then sample from there: Meng et al. 2022.

    Args:
      key: of the sampler's noise.
      schedule: the noise schedule.
      denoiser: (x_t, t, cond) -> Prediction.
      sampler: any.
      guide: the image to begin with (B, ...).
      ts: the grid of a whole draw, n + 1 decreasing times.
      strength: in (0, 1].
      start_noise: standard normal, the guide's shape.
      cond: condition of each sample, or None.
      noise: of the steps that are run, or None to draw it.

    Returns:
      Samples at ts[-1].

    Raises:
      InputError: the strength is outside (0, 1] or leaves no step of the grid.
    """
    n = ts.shape[0] - 1
    skipped = strength_steps(n, strength)
    if skipped == n:
        raise InputError(
            f"strength {strength} leaves none of {n} steps; use at least {1 / n:.3g} or more steps."
        )
    x = q_sample(schedule, guide, ts[skipped], start_noise)
    return walk(key, denoiser, sampler, x, ts[skipped:], cond, noise)
