"""Loss weights w(logsnr).

A weight multiplies |x0_hat - x0|^2. For a variance-preserving process the squared error
in eps is SNR times that in x0, and the squared error in v is SNR + 1 times it.
"""

import jax
import jax.numpy as jnp

from diffjax.diffusion import value_and_rate
from diffjax.errors import check_finite, check_positive
from diffjax.schedules import zero_terminal_snr
from diffjax.types import Anyshape, Schedule


def unit(logsnr: Anyshape) -> Anyshape:
    """1: the plain squared error of x0."""
    return jnp.ones_like(logsnr)


def snr(logsnr: Anyshape) -> Anyshape:
    """SNR: the squared error of eps, L_simple of Ho et al. 2020, Eq. 14."""
    return jnp.exp(logsnr)


def snr_plus_one(logsnr: Anyshape) -> Anyshape:
    """SNR + 1: the squared error of v: Salimans & Ho 2022, section 4."""
    return 1 + jnp.exp(logsnr)


def velocity(logsnr: Anyshape) -> Anyshape:
    """(1 + sqrt(SNR))^2: the squared error of the velocity on `rectified_flow`, where it is 1/t^2.

    x0_hat = x_t - t v_hat at every x_t (Lipman et al. 2023, Eq. 20-23), so that an error of v is
    t times as large in x0, and sqrt(SNR) = (1 - t)/t.
    """
    return (1 + jnp.exp(logsnr / 2)) ** 2


def truncated_snr(logsnr: Anyshape) -> Anyshape:
    """max(SNR, 1): Salimans & Ho 2022, section 4."""
    return jnp.exp(jnp.maximum(logsnr, 0))


def min_snr(gamma: float = 5.0):
    """min(SNR, gamma): Hang et al. 2023, Eq. 8, in its form for x0.

    Args:
      gamma: cap on the weight, positive.

    Returns:
      A weight of logsnr.

    Raises:
      InputError: gamma is not positive.
    """
    check_positive("min_snr", gamma=gamma)
    return lambda logsnr: jnp.minimum(jnp.exp(logsnr), gamma)


def p2(k: float = 1.0, gamma: float = 1.0):
    """SNR / (k + SNR)^gamma: Choi et al. 2022, Eq. 8 on the loss of eps, written for x0.

    Args:
      k: keeps the weight finite at low SNR, positive.
      gamma: strength; 0 is the loss of eps.

    Returns:
      A weight of logsnr.

    Raises:
      InputError: k is not positive, or gamma is not finite.
    """
    check_positive("p2", k=k)
    check_finite("p2", gamma=gamma)
    # SNR/(k + SNR) is a sigmoid, which has its limits at both ends.
    return lambda logsnr: jax.nn.sigmoid(logsnr - jnp.log(k)) * (k + jnp.exp(logsnr)) ** (1 - gamma)


def edm_weight(sigma_data: float = 0.5):
    """(r^2 + sigma_data^2) / (r sigma_data)^2, r = sigma/alpha: Karras et al. 2022, Table 1.

    It is 1/c_out^2 of `parameterization.edm_preconditioning`: 1 on the network's own target.

    Args:
      sigma_data: standard deviation of the data, positive.

    Returns:
      A weight of logsnr.

    Raises:
      InputError: sigma_data is not positive.
    """
    check_positive("edm_weight", sigma_data=sigma_data)
    return lambda logsnr: jnp.exp(logsnr) + sigma_data**-2


def sigmoid_weight(bias: float = 2.0):
    """sigmoid(bias - logsnr) on eps: Kingma & Gao 2023; Hoogeboom et al. 2024.

    Written for x0, exp(bias) sigmoid(logsnr - bias). Both papers integrate over logsnr:
    `over_logsnr(sigmoid_weight(bias), schedule)` is their loss (up to the half).

    Args:
      bias: log-SNR above which the weight falls off; 2 is Kingma & Gao's.

    Returns:
      A weight of logsnr.

    Raises:
      InputError: bias is not finite.
    """
    check_finite("sigmoid_weight", bias=bias)
    return lambda logsnr: jnp.exp(bias) * jax.nn.sigmoid(logsnr - bias)


def over_logsnr(weight, schedule: Schedule, pdf=None):
    """The weight whose mean over t is an integral over logsnr: Kingma & Gao 2023.

    E_{t ~ p}[(-dlogsnr/dt) w(logsnr) / p(t) error] = integral of w error over logsnr, the same
    in every schedule with the same ends. Where the SNR is 0, dlogsnr/dt is infinite and the
    weight is its limit, which may be 0 or infinite (`elbo_weight` on `laplace` of scale below 1).

    Args:
      weight: w, a weight of logsnr.
      schedule: gives dlogsnr/dt and, for uniform times, the range.
      pdf: t -> probability density of the times drawn; None is uniform on [t_min, t_max].

    Returns:
      A weight of logsnr.
    """

    def weighted(logsnr):
        t, slope = value_and_rate(schedule.t_from_logsnr, logsnr)
        p = 1 / (schedule.t_max - schedule.t_min) if pdf is None else pdf(t)
        return weight(logsnr) / (-slope * p)

    return _with_limit(weighted) if zero_terminal_snr(schedule) else weighted


def _with_limit(weight):
    """A weight with its limit where the SNR is 0.

    Near there a weight is C SNR^k: two small SNRs, of ratio e, tell k above, at and below 0.
    At an SNR of the precision of the numbers, 1 - t is still known to its root, and so is C.
    """

    def limited(logsnr):
        small = jnp.log(jnp.finfo(logsnr.dtype).eps)
        near, nearer = weight(jnp.stack([small, small - 1]).astype(logsnr.dtype))
        grows = (nearer > 1.01 * near) | jnp.isinf(nearer)
        limit = jnp.where(grows, jnp.inf, jnp.where(nearer < 0.99 * near, 0.0, near))
        zero = jnp.isneginf(logsnr)
        return jnp.where(zero, limit, weight(jnp.where(zero, small, logsnr)))

    return limited


def elbo_weight(schedule: Schedule, pdf=None):
    """-SNR'(t)/2 over the density of t: the variational bound of Kingma et al. 2021, Eq. 17.

    With it the mean of w |x0_hat - x0|^2 is the diffusion loss between t_min and t_max in
    nats (per dimension, where the squared error is a mean over elements).

    Args:
      schedule: gives the slope of SNR.
      pdf: t -> probability density of the times drawn; None is uniform on [t_min, t_max].
        A density with importance weights counts as uniform.

    Returns:
      A weight of logsnr.
    """
    return over_logsnr(lambda logsnr: jnp.exp(logsnr) / 2, schedule, pdf)
