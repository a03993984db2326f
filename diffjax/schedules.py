"""Noise schedules: x_t = alpha(t) x0 + sigma(t) eps with t continuous, larger is noisier.

A published beta table becomes a continuous schedule through `from_betas`; table index k
(counted from 0) is the time t = (k + 1) / T, and t = 0 is clean data.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.types import Anyshape, BetaTable, InputError, Scalar, Schedule

# exp(LOG_ZERO / 2) is exactly 0 in float32 and float64, and LOG_ZERO interpolates.
LOG_ZERO = -1e4


def logsnr(schedule: Schedule, t: Anyshape | float) -> Anyshape:
    """Log signal-to-noise ratio, log(alpha^2 / sigma^2): Kingma et al. 2021, Eq. 3.

    Args:
      schedule: the noise schedule.
      t: times, any shape.

    Returns:
      Natural logarithm, t's shape; +inf where sigma is 0, -inf where alpha is 0.
    """
    t = jnp.asarray(t)
    return 2 * (jnp.log(schedule.alpha(t)) - jnp.log(schedule.sigma(t)))


def clean_time(schedule: Schedule) -> Scalar:
    """The time at which sigma is 0, the end of every grid that reaches the data."""
    return schedule.t_from_logsnr(jnp.asarray(jnp.inf))


# --- beta tables ------------------------------------------------------------------------


def linear_betas(T: int = 1000, start: float = 1e-4, stop: float = 0.02) -> np.ndarray:
    """Betas linear in the index: Ho et al. 2020, section 4.

    For T other than 1000 both ends are scaled by 1000 / T, which keeps alpha_bar at the
    last step nearly the same (Nichol & Dhariwal 2021, released code).

    Args:
      T: number of steps, at least 21 for the default ends.
      start: first beta at T = 1000.
      stop: last beta at T = 1000.

    Returns:
      Table (T,) float64.
    """
    return np.linspace(start * 1000 / T, stop * 1000 / T, T)


def scaled_linear_betas(T: int = 1000, start: float = 0.00085, stop: float = 0.012) -> np.ndarray:
    """Betas whose square roots are linear: Rombach et al. 2022 (latent diffusion).

    Args:
      T: number of steps.
      start: first beta at T = 1000 (scaled by 1000 / T, as in `linear_betas`).
      stop: last beta at T = 1000.

    Returns:
      Table (T,) float64.
    """
    return np.linspace((start * 1000 / T) ** 0.5, (stop * 1000 / T) ** 0.5, T) ** 2


def cosine_betas(T: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> np.ndarray:
    """Betas of alpha_bar = cos^2((t + s)/(1 + s) pi/2): Nichol & Dhariwal 2021, Eq. 17.

    Args:
      T: number of steps.
      offset: the s of the equation, which keeps the first betas from vanishing.
      max_beta: cap on beta, reached at the last steps.

    Returns:
      Table (T,) float64.
    """
    angle = (np.arange(T + 1) / T + offset) / (1 + offset) * np.pi / 2
    alpha_bar = np.cos(angle) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta)


def sigmoid_betas(T: int = 1000, start: float = 1e-4, stop: float = 0.02) -> np.ndarray:
    """Betas that follow a logistic curve over [-6, 6]: Xu et al. 2022 (GeoDiff).

    Args:
      T: number of steps.
      start: lower asymptote at T = 1000 (scaled by 1000 / T, as in `linear_betas`).
      stop: upper asymptote at T = 1000.

    Returns:
      Table (T,) float64.
    """
    curve = 1 / (1 + np.exp(-np.linspace(-6, 6, T)))
    return (curve * (stop - start) + start) * 1000 / T


def rescale_zero_terminal_snr(betas: BetaTable) -> BetaTable:
    """Shift and scale sqrt(alpha_bar) so that the last step is pure noise: Lin et al. 2024, Alg. 1.

    Args:
      betas: a table (T,).

    Returns:
      Table (T,) with the same first alpha_bar and with alpha_bar 0 at the end (beta 1).
    """
    root = np.sqrt(np.cumprod(1 - np.asarray(betas, np.float64)))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])


def from_betas(betas: BetaTable) -> Schedule:
    """The continuous schedule through a beta table: log alpha_bar linear between t = k/T.

    At the grid points it is the discrete process exactly, alpha^2 = prod(1 - beta)
    (Ho et al. 2020, Eq. 4), and in between beta is constant. A last beta of 1 is a zero
    terminal SNR: alpha(1) is exactly 0.

    Args:
      betas: table (T,), each in (0, 1), the last in (0, 1].

    Returns:
      A variance-preserving schedule with t in [1/T, 1] and clean data at t = 0.

    Raises:
      InputError: the table is not one-dimensional, or a beta is out of range.
    """
    betas = np.asarray(betas, np.float64)
    inside = np.all((betas > 0) & (betas <= 1)) and np.all(betas[:-1] < 1)
    if betas.ndim != 1 or betas.size == 0 or not inside:
        values = f" with values from {betas.min():g} to {betas.max():g}" if betas.size else ""
        raise InputError(
            f"from_betas needs a table (T,) of betas in (0, 1), the last at most 1; got shape "
            f"{betas.shape}{values}. Tables such as linear_betas need T > 20."
        )
    T = len(betas)
    with np.errstate(divide="ignore"):
        log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    log_alpha_bar = np.maximum(log_alpha_bar, LOG_ZERO)

    def interpolate(t):
        # The dtype named: without it JAX 0.10 keeps the precision in which this array was first
        # traced, and a schedule used in float32 would stay so under enable_x64.
        table = jnp.asarray(log_alpha_bar, float)
        u = t * T
        k = jnp.clip(jnp.ceil(u) - 1, 0, T - 1).astype(int)  # a knot has its own step's slope
        return table[k] + (u - k) * (table[k + 1] - table[k])

    def t_from_logsnr(logsnr):
        return jnp.interp(jax.nn.softplus(-logsnr), -log_alpha_bar, np.arange(T + 1) / T)

    return Schedule(
        alpha=lambda t: jnp.exp(interpolate(t) / 2),
        sigma=lambda t: jnp.sqrt(-jnp.expm1(interpolate(t))),
        t_from_logsnr=t_from_logsnr,
        t_min=1 / T,
        t_max=1.0,
    )


# --- continuous schedules ---------------------------------------------------------------


def vp_linear(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> Schedule:
    """Variance preserving, beta(t) linear: Song et al. 2021 (score SDE), Eq. 32-33.

    alpha(t) = exp(-t^2 (beta_max - beta_min) / 4 - t beta_min / 2), sigma^2 = 1 - alpha^2.

    Args:
      beta_min: rate at t = 0.
      beta_max: rate at t = 1.
      t_min: smallest time that a network is asked about.

    Returns:
      Schedule with t in [t_min, 1].
    """
    slope = beta_max - beta_min

    def minus_log_alpha_bar(t):
        return slope * t**2 / 2 + beta_min * t

    def t_from_logsnr(logsnr):
        x = jax.nn.softplus(-logsnr)
        return 2 * x / (beta_min + jnp.sqrt(beta_min**2 + 2 * slope * x))

    return Schedule(
        alpha=lambda t: jnp.exp(-minus_log_alpha_bar(t) / 2),
        sigma=lambda t: jnp.sqrt(-jnp.expm1(-minus_log_alpha_bar(t))),
        t_from_logsnr=t_from_logsnr,
        t_min=t_min,
        t_max=1.0,
    )


def vp_cosine(offset: float = 0.008, t_min: float = 1e-3, t_max: float = 0.9946) -> Schedule:
    """Variance preserving, alpha(t) = cos(a + b) / cos(b): Nichol & Dhariwal 2021, Eq. 17.

    Here a = t/(1+s) pi/2 and b = s/(1+s) pi/2, and sigma comes from
    1 - alpha^2 = sin(a) sin(a + 2b) / cos(b)^2, which has no cancellation at small t.

    Args:
      offset: the s of the equation; 0 gives alpha = cos(pi t / 2).
      t_min: smallest time that a network is asked about.
      t_max: largest time; 0.9946 is the stop of Lu et al. 2022 (DPM-Solver, appendix D).

    Returns:
      Schedule with t in [t_min, t_max].
    """
    quarter = np.pi / 2 / (1 + offset)
    b = offset * quarter

    def t_from_logsnr(logsnr):
        # sin and cos of a from those of a + b, in the form that is exactly 0 at clean data.
        alpha_bar, noise = jax.nn.sigmoid(logsnr), jax.nn.sigmoid(-logsnr)
        sine = jnp.sqrt(noise + alpha_bar * np.sin(b) ** 2)
        cosine = jnp.sqrt(alpha_bar) * np.cos(b)
        below = jnp.maximum(sine * np.cos(b) + cosine * np.sin(b), jnp.finfo(sine.dtype).tiny)
        above = noise * np.cos(b) ** 2 / below
        return jnp.arctan2(above, cosine * np.cos(b) + sine * np.sin(b)) / quarter

    return Schedule(
        alpha=lambda t: jnp.maximum(jnp.cos(t * quarter + b), 0) / np.cos(b),
        sigma=lambda t: jnp.sqrt(jnp.sin(t * quarter) * jnp.sin(t * quarter + 2 * b)) / np.cos(b),
        t_from_logsnr=t_from_logsnr,
        t_min=t_min,
        t_max=t_max,
    )


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> Schedule:
    """Time is the noise level itself, alpha = 1 and sigma(t) = t: Karras et al. 2022, Table 1.

    Args:
      sigma_min: smallest noise level of a grid before 0.
      sigma_max: largest noise level, where sampling begins.

    Returns:
      Schedule with t in [sigma_min, sigma_max].
    """
    return Schedule(
        alpha=jnp.ones_like,
        sigma=lambda t: t,
        t_from_logsnr=lambda logsnr: jnp.exp(-logsnr / 2),
        t_min=sigma_min,
        t_max=sigma_max,
    )
