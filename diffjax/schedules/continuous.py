"""Continuous schedules by their closed forms: variance preserving, exploding, and flows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError, check_finite, check_positive
from diffjax.types import Array, Schedule


def _linear_rate(
    beta_min: float, beta_max: float
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """The integral of beta from 0 to t for beta linear in t, and the time of an integral."""
    slope = beta_max - beta_min

    def integral(t):
        return slope * t**2 / 2 + beta_min * t

    def time_of(x):
        return 2 * x / (beta_min + jnp.sqrt(beta_min**2 + 2 * slope * x))

    return integral, time_of


MOST_RATE = 1e3  # at a higher one alpha is 0 in float32 long before t = 1


def _check_times(t_min: float, t_max: float = 1.0, most: float = 1.0) -> None:
    """Refuse ends of time that are not 0 <= t_min < t_max <= most."""
    if not 0 <= t_min < t_max <= most:
        raise InputError(
            f"expected times 0 <= t_min < t_max <= {most:g}; got t_min {t_min} and t_max {t_max}."
        )


def _check_rates(beta_min: float, beta_max: float) -> None:
    if not 0 < beta_min <= beta_max < MOST_RATE:
        raise InputError(
            "expected 0 < beta_min <= beta_max, rates of noise, and below "
            f"{MOST_RATE:g}; got {beta_min} and {beta_max}."
        )


def vp_linear(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> Schedule:
    """Variance preserving, beta(t) linear: Song et al. 2021 (score SDE), Eq. 32-33.

    alpha(t) = exp(-t^2 (beta_max - beta_min) / 4 - t beta_min / 2), sigma^2 = 1 - alpha^2.

    Args:
      beta_min: rate at t = 0.
      beta_max: rate at t = 1.
      t_min: smallest time that a network is asked about.

    Returns:
      Schedule with t in [t_min, 1].

    Raises:
      InputError: the rates are not positive and increasing, or t_min is not in [0, 1).
    """
    _check_rates(beta_min, beta_max)
    _check_times(t_min)
    minus_log_alpha_bar, time_of = _linear_rate(beta_min, beta_max)
    return Schedule(
        alpha=lambda t: jnp.exp(-minus_log_alpha_bar(t) / 2),
        sigma=lambda t: jnp.sqrt(-jnp.expm1(-minus_log_alpha_bar(t))),
        t_from_logsnr=lambda logsnr: time_of(jax.nn.softplus(-logsnr)),
        t_min=t_min,
        t_max=1.0,
    )


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> Schedule:
    """Sub-VP, with less variance than VP at every time: Song et al. 2021 (score SDE), Eq. 29.

    alpha(t) is that of `vp_linear`, and sigma = 1 - alpha^2 where VP has its square root.

    Args:
      beta_min: rate at t = 0.
      beta_max: rate at t = 1.
      t_min: smallest time that a network is asked about.

    Returns:
      Schedule with t in [t_min, 1].

    Raises:
      InputError: the rates are not positive and increasing, or t_min is not in [0, 1).
    """
    _check_rates(beta_min, beta_max)
    _check_times(t_min)
    minus_log_alpha_bar, time_of = _linear_rate(beta_min, beta_max)
    return Schedule(
        alpha=lambda t: jnp.exp(-minus_log_alpha_bar(t) / 2),
        sigma=lambda t: -jnp.expm1(-minus_log_alpha_bar(t)),
        # sigma / alpha = 2 sinh(-log alpha)
        t_from_logsnr=lambda logsnr: time_of(2 * jnp.arcsinh(jnp.exp(-logsnr / 2) / 2)),
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

    Raises:
      InputError: offset is not in [0, 1], or not 0 <= t_min < t_max <= 1.
    """
    if not 0 <= offset <= 1:
        raise InputError(f"vp_cosine needs an offset from 0 to 1; got {offset}.")
    _check_times(t_min, t_max)
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


def gvp(t_min: float = 1e-3) -> Schedule:
    """Trigonometric interpolant: Albergo et al. 2023; "GVP" of Ma et al. 2024 (SiT).

    alpha(t) = cos(pi t / 2), sigma(t) = sin(pi t / 2), with exact zeros at both ends.

    Args:
      t_min: smallest time that a network is asked about.

    Returns:
      A variance-preserving schedule with t in [t_min, 1] and a terminal SNR of zero.

    Raises:
      InputError: t_min is not in [0, 1).
    """
    _check_times(t_min)
    quarter = np.pi / 2
    return Schedule(
        alpha=lambda t: jnp.sin((1 - t) * quarter),  # cos(pi / 2) is not 0 in floating point
        sigma=lambda t: jnp.sin(t * quarter),
        t_from_logsnr=lambda logsnr: jnp.arctan(jnp.exp(-logsnr / 2)) / quarter,
        t_min=t_min,
        t_max=1.0,
    )


def rectified_flow(t_min: float = 1e-3) -> Schedule:
    """The straight line between data and noise: Liu et al. 2023, Eq. 1; Lipman et al. 2023, Eq. 20.

    alpha(t) = 1 - t, sigma(t) = t; here t = 1 is noise (Lipman et al. have t = 0 there).
    At t = 1 the SNR is exactly zero, where `predict_velocity` is finite.

    Args:
      t_min: smallest time that a network is asked about.

    Returns:
      Schedule with t in [t_min, 1].

    Raises:
      InputError: t_min is not in [0, 1).
    """
    _check_times(t_min)
    return Schedule(
        alpha=lambda t: 1 - t,
        sigma=lambda t: t,
        t_from_logsnr=lambda logsnr: jax.nn.sigmoid(-logsnr / 2),
        t_min=t_min,
        t_max=1.0,
    )


def laplace(mean: float = 0.0, scale: float = 0.5, t_min: float = 1e-4) -> Schedule:
    """Uniform t has a Laplace distribution of log-SNR: Hang et al. 2024.

    logsnr(t) = mean - scale sgn(1/2 - t) log(1 - 2|t - 1/2|), variance preserving. Most
    times fall near the log-SNR `mean`.

    Args:
      mean: log-SNR at t = 1/2.
      scale: spread of the log-SNR, positive.
      t_min: smallest time that a network is asked about; logsnr there is
        mean - scale log(2 t_min), for the defaults 4.3.

    Returns:
      A variance-preserving schedule with t in [t_min, 1] and a terminal SNR of zero. At t = 1
      alpha is 0 with no finite slope, so that an SDE sampler starts a little below it.

    Raises:
      InputError: scale is not positive, mean is not finite, or t_min is not in [0, 1).
    """
    check_positive("laplace", scale=scale)
    check_finite("laplace", mean=mean)
    _check_times(t_min)

    def logsnr_of(t):
        # One logarithm, of the distance to the nearer end.
        near = jnp.where(t < 0.5, t, 1 - t)
        return mean + jnp.where(t < 0.5, -scale, scale) * jnp.log(2 * near)

    def t_from_logsnr(logsnr):
        tail = jnp.exp(-jnp.abs(logsnr - mean) / scale) / 2
        return jnp.where(logsnr > mean, tail, 1 - tail)

    return Schedule(
        alpha=lambda t: jnp.exp(-jax.nn.softplus(-logsnr_of(t)) / 2),
        sigma=lambda t: jnp.exp(-jax.nn.softplus(logsnr_of(t)) / 2),
        t_from_logsnr=t_from_logsnr,
        t_min=t_min,
        t_max=1.0,
    )


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Schedule:
    """Variance exploding, noise levels geometric in time: Song et al. 2021 (score SDE), Eq. 31.

    alpha = 1 and sigma(t) = sigma_min (sigma_max / sigma_min)^t. No finite time is clean:
    sigma is exactly 0 at t = -inf, which is where every grid that reaches the data ends.

    Args:
      sigma_min: noise level at t = 0, positive.
      sigma_max: noise level at t = 1, about the largest distance within the data.

    Returns:
      Schedule with t in [0, 1].

    Raises:
      InputError: the noise levels are not increasing and positive.
    """
    if not 0 < sigma_min < sigma_max < np.inf:
        raise InputError(
            f"ve needs 0 < sigma_min < sigma_max; got {sigma_min} and {sigma_max}. For a "
            "schedule that reaches sigma 0 at a finite time use edm."
        )
    octaves = np.log(sigma_max / sigma_min)
    return Schedule(
        alpha=jnp.ones_like,
        sigma=lambda t: sigma_min * jnp.exp(t * octaves),
        t_from_logsnr=lambda logsnr: (-logsnr / 2 - np.log(sigma_min)) / octaves,
        t_min=0.0,
        t_max=1.0,
    )


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> Schedule:
    """Time is the noise level itself, alpha = 1 and sigma(t) = t: Karras et al. 2022, Table 1.

    Args:
      sigma_min: smallest noise level of a grid before 0.
      sigma_max: largest noise level, where sampling begins.

    Returns:
      Schedule with t in [sigma_min, sigma_max].

    Raises:
      InputError: the noise levels are not increasing and positive.
    """
    if not 0 < sigma_min < sigma_max < np.inf:
        raise InputError(f"edm needs 0 < sigma_min < sigma_max; got {sigma_min} and {sigma_max}.")
    return Schedule(
        alpha=jnp.ones_like,
        sigma=lambda t: t,
        t_from_logsnr=lambda logsnr: jnp.exp(-logsnr / 2),
        t_min=sigma_min,
        t_max=sigma_max,
    )
