"""The forward process, its posterior, and what can be read off x_t and x0.

Everything is written for an interval s < t of any length: a respaced process needs no new
tables. It is written in the ratio SNR(t)/SNR(s): nothing divides by zero at clean data (sigma
0) or at zero terminal SNR (alpha 0).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from diffjax.errors import InputError
from diffjax.normals import normals
from diffjax.schedules import logsnr
from diffjax.types import (
    Array,
    Index,
    Keys,
    Prediction,
    PRNGKeyArray,
    Samples,
    Scalar,
    Schedule,
    Time,
    per_sample,
)

VARIANCE_FLOOR = 1e-20

# --- forward ----------------------------------------------------------------------------


def q_sample(schedule: Schedule, x0: Samples, t: Time, eps: Samples) -> Samples:
    """Draw x_t given x0: alpha(t) x0 + sigma(t) eps (Ho et al. 2020, Eq. 4).

    Args:
      schedule: the noise schedule.
      x0: data, or a prediction of it.
      t: time, a scalar or (B,).
      eps: standard normal, x0's shape.

    Returns:
      x_t, x0's shape.
    """
    t = jnp.asarray(t)
    return per_sample(schedule.alpha(t), x0) * x0 + per_sample(schedule.sigma(t), x0) * eps


def transition(schedule: Schedule, t: Time, s: Time) -> tuple[Array, Array]:
    """Scale and variance of q(x_t | x_s), s < t: Kingma et al. 2021, Eq. 20-21.

    alpha_{t|s} = alpha_t / alpha_s and
    sigma^2_{t|s} = sigma_t^2 - alpha_{t|s}^2 sigma_s^2 = sigma_t^2 (1 - SNR(t)/SNR(s)),
    which is DDPM's beta_k for neighbouring steps of a table.

    Args:
      schedule: the noise schedule.
      t: later time, a scalar or (B,).
      s: earlier time, t's shape.

    Returns:
      alpha_{t|s} and sigma^2_{t|s}, t's shape.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    ratio = logsnr(schedule, t) - logsnr(schedule, s)
    return schedule.alpha(t) / schedule.alpha(s), -(schedule.sigma(t) ** 2) * jnp.expm1(ratio)


def q_step(schedule: Schedule, x_s: Samples, s: Time, t: Time, eps: Samples) -> Samples:
    """Draw one Markov step x_t given x_s: Ho et al. 2020, Eq. 2, over any interval.

    Args:
      schedule: the noise schedule.
      x_s: the sample at the earlier time.
      s: earlier time, a scalar or (B,).
      t: later time, s's shape.
      eps: standard normal, x_s's shape.

    Returns:
      x_t, x_s's shape.
    """
    scale, variance = transition(schedule, t, s)
    return per_sample(scale, x_s) * x_s + per_sample(jnp.sqrt(variance), x_s) * eps


def sample_keys(key: PRNGKeyArray, n: int, first: Index = 0) -> Keys:
    """One key per sample, by folding in its index: sample i is the same in any batch.

    Args:
      key: the key of the whole draw.
      n: number of samples in this batch.
      first: index of the batch's first sample.

    Returns:
      Keys (n,).
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(n))


def step_noise(keys: Keys, step: Index, draws: int, x: Samples) -> Array:
    """Standard normal noise (draws, *x.shape) of one step: its number folded into each key."""
    return jnp.moveaxis(normals(keys, step, (draws, *x.shape[1:]), x.dtype), 0, 1)


def safe_sqrt(x: Array) -> Array:
    """The square root, 0 at and below 0, with the derivative 0 there and not inf or NaN."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def prior_sample(
    key: PRNGKeyArray,
    schedule: Schedule,
    shape: Sequence[int],
    first: Index = 0,
    t: Scalar | None = None,
) -> Samples:
    """Draw x_T from the prior, sigma(t_max) N(0, I).

    Args:
      key: consumed whole.
      schedule: the noise schedule.
      shape: (B, *sample shape).
      first: index of the first sample, for draws in several batches.
      t: where sampling begins, default t_max; give a grid's first time if it is another.

    Returns:
      x_T of the given shape; entry i depends on the key and `first + i` alone.
    """
    t = jnp.asarray(schedule.t_max if t is None else t)
    draw = jax.vmap(lambda k: jax.random.normal(k, tuple(shape[1:])))
    return schedule.sigma(t) * draw(sample_keys(key, shape[0], first))


# --- posterior --------------------------------------------------------------------------


def posterior_variance(schedule: Schedule, t: Time, s: Time) -> Array:
    """Variance of q(x_s | x_t, x0): sigma_s^2 (1 - SNR(t)/SNR(s)), beta-tilde of DDPM Eq. 7."""
    return -(schedule.sigma(jnp.asarray(s)) ** 2) * jnp.expm1(
        logsnr(schedule, t) - logsnr(schedule, s)
    )


def q_posterior(
    schedule: Schedule, x0: Samples, x_t: Samples, t: Time, s: Time
) -> tuple[Samples, Array, Array]:
    """Mean, variance and clipped log-variance of q(x_s | x_t, x0): Ho et al. 2020, Eq. 6-7.

    mean = alpha_{t|s} sigma_s^2/sigma_t^2 x_t + alpha_s (1 - SNR(t)/SNR(s)) x0.

    Args:
      schedule: the noise schedule.
      x0: data, or a prediction of it.
      x_t: the sample at the later time.
      t: later time, a scalar or (B,), with sigma(t) > 0.
      s: earlier time, t's shape.

    Returns:
      Mean (x0's shape), variance and clipped log-variance (t's shape); see
      `log_variance_small` for the clipping.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    scale, _ = transition(schedule, t, s)
    from_x_t = scale * (schedule.sigma(s) / schedule.sigma(t)) ** 2
    from_x0 = -schedule.alpha(s) * jnp.expm1(logsnr(schedule, t) - logsnr(schedule, s))
    mean = per_sample(from_x_t, x_t) * x_t + per_sample(from_x0, x0) * x0
    small = log_variance_small(schedule, t, s, Prediction(x0))
    return mean, posterior_variance(schedule, t, s), small


def _above_clean(schedule: Schedule, t: Array, s: Array) -> tuple[Array, Array]:
    """The interval itself, or where s is clean the interval of the same length above it.

    A single step from t_max has none above it, and is left.
    """
    clean = (schedule.sigma(s) == 0) & (t < schedule.t_max)
    above = jnp.minimum(2 * t - s, schedule.t_max)
    return jnp.where(clean, above, t), jnp.where(clean, t, s)


def log_variance_small(schedule: Schedule, t: Time, s: Time, prediction: Prediction) -> Array:
    """Log of the posterior variance, the lower bound on the reverse variance: DDPM section 3.2.

    At the last step (s clean) the variance is 0, and as in the released DDPM code the
    log of the step before it stands in: of the interval of the same length above t.

    Args:
      schedule: the noise schedule.
      t: later time, a scalar or (B,).
      s: earlier time, t's shape.
      prediction: not looked at; every reverse variance has this signature.

    Returns:
      Log-variance, t's shape, at least log(1e-20).
    """
    t, s = _above_clean(schedule, jnp.asarray(t), jnp.asarray(s))
    return jnp.log(jnp.maximum(posterior_variance(schedule, t, s), VARIANCE_FLOOR))


def log_variance_large(schedule: Schedule, t: Time, s: Time, prediction: Prediction) -> Array:
    """Log of beta (sigma^2_{t|s}), the upper bound on the reverse variance: DDPM section 3.2.

    At the last step it is `log_variance_small`, as in the released DDPM code. Arguments
    and result are those of `log_variance_small`.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    last = log_variance_small(schedule, t, s, prediction)
    return jnp.where(schedule.sigma(s) == 0, last, jnp.log(transition(schedule, t, s)[1]))


def log_variance_learned(schedule: Schedule, t: Time, s: Time, prediction: Prediction) -> Array:
    """v log beta + (1 - v) log beta-tilde: Nichol & Dhariwal 2021, Eq. 15.

    Args:
      schedule: the noise schedule.
      t: later time, a scalar or (B,).
      s: earlier time, t's shape.
      prediction: its `variance_fraction` (x's shape) is v.

    Returns:
      Log-variance, x's shape.

    Raises:
      InputError: the prediction has no `variance_fraction`.
    """
    fraction = prediction.variance_fraction
    if fraction is None:
        raise InputError(
            "a learned variance needs a network with twice the channels of its input; this "
            "prediction has no variance_fraction. Use the small or large variance instead."
        )
    small = per_sample(log_variance_small(schedule, t, s, prediction), fraction)
    large = per_sample(jnp.log(transition(schedule, t, s)[1]), fraction)
    return fraction * large + (1 - fraction) * small


def gaussian_kl(
    mean1: Array | float,
    log_variance1: Array | float,
    mean2: Array | float,
    log_variance2: Array | float,
) -> Array:
    """KL(N(mean1, var1) || N(mean2, var2)) per element, in nats: Ho et al. 2020, Eq. 5.

    Args:
      mean1: mean of the first Gaussian; all four broadcast against each other.
      log_variance1: natural logarithm of its variance.
      mean2: mean of the second.
      log_variance2: natural logarithm of its variance.

    Returns:
      Nats per element, at least 0.
    """
    difference = log_variance1 - log_variance2
    squared = (mean1 - mean2) ** 2 * jnp.exp(-log_variance2)
    return (jnp.expm1(difference) - difference + squared) / 2


# --- what x_t and x0 determine ----------------------------------------------------------


def eps_from_x0(schedule: Schedule, x_t: Samples, t: Time, x0: Samples) -> Samples:
    """The noise that takes x0 to x_t: (x_t - alpha x0) / sigma. Needs sigma(t) > 0."""
    t = jnp.asarray(t)
    return (x_t - per_sample(schedule.alpha(t), x0) * x0) / per_sample(schedule.sigma(t), x_t)


def score_from_x0(schedule: Schedule, x_t: Samples, t: Time, x0: Samples) -> Samples:
    """Score of p_t at x_t from E[x0 | x_t]: -eps / sigma (Vincent 2011; Song et al. 2021)."""
    sigma = per_sample(schedule.sigma(jnp.asarray(t)), x_t)
    return -eps_from_x0(schedule, x_t, t, x0) / sigma


def v_from_x0(schedule: Schedule, x_t: Samples, t: Time, x0: Samples) -> Samples:
    """v = alpha eps - sigma x0: Salimans & Ho 2022, section 4."""
    t = jnp.asarray(t)
    eps = eps_from_x0(schedule, x_t, t, x0)
    return per_sample(schedule.alpha(t), eps) * eps - per_sample(schedule.sigma(t), x0) * x0


def velocity_from_x0(schedule: Schedule, x_t: Samples, t: Time, x0: Samples) -> Samples:
    """dx_t/dt at fixed x0 and eps: alpha' x0 + sigma' eps (Lipman et al. 2023, Eq. 14-15)."""
    _, alpha_rate = value_and_rate(schedule.alpha, t)
    _, sigma_rate = value_and_rate(schedule.sigma, t)
    eps = eps_from_x0(schedule, x_t, t, x0)
    return per_sample(alpha_rate, x0) * x0 + per_sample(sigma_rate, eps) * eps


# --- the stochastic differential equation -----------------------------------------------


def value_and_rate(f: Callable[[Array], Array], t: Time) -> tuple[Array, Array]:
    """f(t) and f'(t), elementwise.

    Args:
      f: a function of time alone, such as `schedule.alpha`.
      t: times, a scalar or (B,).

    Returns:
      Value and derivative, t's shape.
    """
    t = jnp.asarray(t, float)
    return jax.jvp(f, (t,), (jnp.ones_like(t),))


def drift(schedule: Schedule, t: Time) -> Array:
    """f of the forward SDE dx = f x dt + g dw: d log(alpha)/dt (Kingma et al. 2021, Eq. 19).

    Args:
      schedule: the noise schedule.
      t: times, a scalar or (B,).

    Returns:
      Rate per unit of t, t's shape, at most 0; -inf where alpha is 0.
    """
    alpha, rate = value_and_rate(schedule.alpha, t)
    noise_only = alpha == 0
    return jnp.where(noise_only, -jnp.inf, rate / jnp.where(noise_only, 1, alpha))


def diffusion_squared(schedule: Schedule, t: Time) -> Array:
    """g^2 of the forward SDE: d sigma^2/dt - 2 f sigma^2 (Kingma et al. 2021, Eq. 19).

    Args:
      schedule: the noise schedule.
      t: times, a scalar or (B,), with sigma(t) > 0.

    Returns:
      Variance per unit of t, t's shape; +inf where alpha is 0.
    """
    sigma, rate = value_and_rate(schedule.sigma, t)
    return 2 * sigma * (rate - drift(schedule, t) * sigma)
