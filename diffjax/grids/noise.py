"""Grids spaced in the noise level sigma/alpha, or in time itself: for every schedule."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError, check_positive
from diffjax.grids.steps import check_steps, grid_maker
from diffjax.schedules import clean_time, logsnr
from diffjax.types import Array, Grid, Scalar, Schedule

# Sabour et al. 2024, the noise levels of 10 steps, found with the networks they are named for.
STABLE_DIFFUSION_15 = (
    *(14.615, 6.475, 3.861, 2.697, 1.886, 1.396),
    *(0.963, 0.652, 0.399, 0.152, 0.029),
)
STABLE_DIFFUSION_XL = (
    *(14.615, 6.315, 3.771, 2.181, 1.342, 0.862),
    *(0.555, 0.380, 0.234, 0.113, 0.029),
)
STABLE_VIDEO_DIFFUSION = (
    *(700.00, 54.5, 15.886, 7.977, 4.248, 1.789),
    *(0.981, 0.403, 0.173, 0.034, 0.002),
)


@grid_maker
def karras(
    schedule: Schedule,
    n: int,
    rho: float = 7.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Grid:
    """sigma^(1/rho) evenly spaced, then clean: Karras et al. 2022, Eq. 5.

    On a schedule with alpha other than 1, sigma stands for the ratio sigma/alpha.

    Args:
      schedule: the noise schedule.
      n: number of steps, at least 1.
      rho: how far steps are shortened towards low noise, above 0.
      sigma_min: lowest noise before clean, above 0; default that of t_min.
      sigma_max: highest noise, at most that of t_max, which stands for more; default that.

    Returns:
      n + 1 decreasing times, the last clean.

    Raises:
      InputError: no steps, a rho that is not above 0, ends that are not 0 < sigma_min <
        sigma_max, or a terminal SNR of zero without sigma_max.
    """
    check_steps(n)
    _check_rho(rho)
    low, high = (jnp.exp(-end / 2) for end in _ends(schedule, sigma_min, sigma_max))
    ratio = (high ** (1 / rho) + _ramp(n) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return from_logsnr(schedule, -2 * jnp.log(ratio))


@grid_maker
def uniform_logsnr(schedule: Schedule, n: int) -> Grid:
    """logsnr evenly spaced from t_max to t_min, then clean: Lu et al. 2022 (DPM-Solver).

    Args:
      schedule: the noise schedule; a zero terminal SNR has no such grid.
      n: number of steps, at least 1.

    Returns:
      n + 1 decreasing times, the last clean.
    """
    check_steps(n)
    low, high = logsnr_range(schedule)
    return from_logsnr(schedule, low + _ramp(n) * (high - low))


@grid_maker
def exponential(
    schedule: Schedule, n: int, sigma_min: float | None = None, sigma_max: float | None = None
) -> Grid:
    """log sigma evenly spaced, then clean: `get_sigmas_exponential` of k-diffusion.

    At the default ends it is `uniform_logsnr`. On a schedule with alpha other than 1, sigma
    stands for the ratio sigma/alpha.

    Args:
      schedule: the noise schedule.
      n: number of steps, at least 1.
      sigma_min: lowest noise before clean, above 0; default that of t_min.
      sigma_max: highest noise, at most that of t_max, which stands for more; default that.

    Returns:
      n + 1 decreasing times, the last clean.

    Raises:
      InputError: as for `karras`.
    """
    return polyexponential(schedule, n, 1.0, sigma_min, sigma_max)


@grid_maker
def polyexponential(
    schedule: Schedule,
    n: int,
    rho: float = 1.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Grid:
    """log sigma = log sigma_min + u^rho (log sigma_max - log sigma_min), then clean.

    `get_sigmas_polyexponential` of k-diffusion, u even from 1 to 0; rho 1 is `exponential`.

    Args:
      schedule: the noise schedule.
      n: number of steps, at least 1.
      rho: above 1 shortens the steps towards low noise, below 1, and above 0, those towards
        high noise.
      sigma_min: lowest noise before clean, above 0; default that of t_min.
      sigma_max: highest noise, at most that of t_max, which stands for more; default that.

    Returns:
      n + 1 decreasing times, the last clean.

    Raises:
      InputError: as for `karras`.
    """
    check_steps(n)
    _check_rho(rho)
    low, high = _ends(schedule, sigma_min, sigma_max)
    return from_logsnr(schedule, low + (1 - _ramp(n)) ** rho * (high - low))


@grid_maker
def vp_uniform(
    schedule: Schedule, n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3
) -> Grid:
    """Even in the time u of the VP process, whatever the schedule: Karras et al. 2022, Table 1.

    sigma(u)^2 = exp(beta_d u^2/2 + beta_min u) - 1 with u even from 1 to eps_s, then clean
    (`get_sigmas_vp` of k-diffusion). A schedule of less noise begins at its own t_max.

    Args:
      schedule: the noise schedule.
      n: number of steps, at least 1.
      beta_d: rise of the rate from u = 0 to 1.
      beta_min: rate at u = 0.
      eps_s: the last u before clean.

    Returns:
      n + 1 decreasing times, the last clean.

    Raises:
      InputError: no steps, a number that is not positive, or a terminal SNR of zero.
    """
    check_steps(n)
    check_positive("vp_uniform", beta_d=beta_d, beta_min=beta_min, eps_s=eps_s)
    noisiest = jax.nn.softplus(-logsnr_range(schedule)[0])  # log(1 + sigma^2)
    first = 2 * noisiest / (beta_min + jnp.sqrt(beta_min**2 + 2 * beta_d * noisiest))
    first = jnp.minimum(first, 1.0)
    u = first + _ramp(n) * (eps_s - first)
    return from_logsnr(schedule, -jnp.log(jnp.expm1(beta_d * u**2 / 2 + beta_min * u)))


@grid_maker
def beta_quantiles(schedule: Schedule, n: int, a: float = 0.6, b: float = 0.6) -> Grid:
    """Quantiles of Beta(a, b) in time, then clean: Lee et al. 2024 (Beta Sampling).

    t_k = t_min + (t_max - t_min) F^-1(1 - k/n): below 1 both shapes crowd the times at the
    two ends, above 1 in the middle; Beta(1, 1) is even.

    Args:
      schedule: the noise schedule.
      n: number of steps, at least 1.
      a: first shape, above 0; smaller puts more times near clean data.
      b: second shape, above 0; smaller puts more times near pure noise.

    Returns:
      n + 1 decreasing times, the last clean.

    Raises:
      InputError: no steps, or a shape that is not above 0.
    """
    from scipy import stats

    check_steps(n)
    if not (a > 0 and b > 0):
        raise InputError(f"the shapes of a beta distribution are above 0; got a {a} and b {b}.")
    quantiles = stats.beta.ppf(1 - np.arange(n) / n, a, b)
    ts = jnp.asarray(schedule.t_min + (schedule.t_max - schedule.t_min) * quantiles)
    return jnp.append(ts, clean_time(schedule))


@grid_maker
def align_your_steps(
    schedule: Schedule, n: int, table: Sequence[float] = STABLE_DIFFUSION_15
) -> Grid:
    """A published table of noise levels, then clean: Sabour et al. 2024 (Align Your Steps).

    For other n than the table's the levels are log-linear in the index, as the authors give;
    the last of them is replaced by clean data, so that n steps are n denoiser calls. A
    schedule of less noise than the table enters it at its own t_max.

    Args:
      schedule: the noise schedule.
      n: number of steps, at least 1.
      table: decreasing noise levels sigma/alpha, `STABLE_DIFFUSION_15`, `STABLE_DIFFUSION_XL`,
        `STABLE_VIDEO_DIFFUSION` or your own.

    Returns:
      n + 1 decreasing times, the last clean.

    Raises:
      InputError: no steps, a table that does not decrease to a level above 0, or a terminal
        SNR of zero.
    """
    check_steps(n)
    levels = np.asarray(table, float)
    if levels.ndim != 1 or len(levels) < 2 or np.any(np.diff(levels) >= 0) or levels[-1] <= 0:
        raise InputError(f"a table needs at least 2 decreasing noise levels above 0; got {table}.")
    knots, index = jnp.asarray(-2 * np.log(levels)), jnp.arange(float(len(levels)))
    first = jnp.interp(logsnr_range(schedule)[0], knots, index)
    logsnrs = jnp.interp(first + jnp.arange(n) / n * (index[-1] - first), index, knots)
    return from_logsnr(schedule, logsnrs)


def _ramp(n: int) -> Array:
    return jnp.arange(n) / max(n - 1, 1)


def _check_rho(rho: Scalar) -> None:
    if not isinstance(rho, jax.core.Tracer) and not 0 < rho < np.inf:
        raise InputError(f"rho must be a number above 0; got {rho}.")


def _ends(
    schedule: Schedule, sigma_min: Scalar | None, sigma_max: Scalar | None
) -> tuple[Array, Array]:
    """Log-SNR at sigma_min and at sigma_max, or at the ends of the schedule."""
    for name, sigma in (("sigma_min", sigma_min), ("sigma_max", sigma_max)):
        known = sigma is not None and not isinstance(sigma, jax.core.Tracer)
        if known and not 0 < sigma < np.inf:
            raise InputError(f"{name} must be a noise level above 0; got {sigma}.")
    if sigma_max is None:
        noisy = logsnr_range(schedule)[0]
    else:
        noisy = jnp.maximum(logsnr(schedule, schedule.t_max), -2 * jnp.log(sigma_max))
    if sigma_min is None:
        cleanest = logsnr(schedule, schedule.t_min)
    else:
        cleanest = jnp.asarray(-2 * jnp.log(sigma_min))
    if not isinstance(cleanest - noisy, jax.core.Tracer) and cleanest < noisy:
        low, high = jnp.exp(-cleanest / 2), jnp.exp(-noisy / 2)
        raise InputError(
            f"the lowest noise must be below the highest; got sigma_min {low:g} and sigma_max "
            f"{high:g}. Give both ends within the schedule, or leave them out."
        )
    return cleanest, noisy


def logsnr_range(schedule: Schedule) -> tuple[Array, Array]:
    """Log-SNR at t_max and at t_min."""
    low, high = logsnr(schedule, schedule.t_max), logsnr(schedule, schedule.t_min)
    if not isinstance(low, jax.core.Tracer) and jnp.isinf(low):
        raise InputError(
            "a grid spaced in noise level needs a finite log-SNR at t_max, and this schedule "
            "has a terminal SNR of zero; use grids.trailing."
        )
    return low, high


def from_logsnr(schedule: Schedule, logsnrs: Array) -> Array:
    """Times of increasing log-SNRs, none beyond t_max, with the clean time appended."""
    ts = schedule.t_from_logsnr(jnp.append(logsnrs, jnp.inf))
    return jnp.minimum(ts, schedule.t_max)
