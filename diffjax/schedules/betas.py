"""Published beta tables, and the continuous schedule through any of them.

Table index k (counted from 0) is the time t = (k + 1) / T, and t = 0 is clean data.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.types import BetaTable, Schedule

# exp(LOG_ZERO / 2) is exactly 0 in float32 and float64, and LOG_ZERO interpolates.
LOG_ZERO = -1e4


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
