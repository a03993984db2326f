"""The weighted squared error of the denoiser, the variational bound, and the hybrid of both."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import (
    eps_from_x0,
    gaussian_kl,
    log_variance_learned,
    q_posterior,
    q_sample,
)
from diffjax.parameterization import check_trainable, make_denoiser
from diffjax.schedules import logsnr
from diffjax.types import (
    Array,
    BoundDenoiser,
    LossFn,
    Network,
    Parameterization,
    PerSample,
    Prediction,
    Samples,
    Schedule,
    Time,
    TimeDensity,
    per_sample,
)
from diffjax.weighting import on_steps

OPEN = 1e10  # standard deviations: beyond every bin, and its cube is finite in float32


def per_sample_mean(x: Samples) -> PerSample:
    """Mean over everything but the batch."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def split_batch(batch: dict) -> tuple[Array, dict | None]:
    """A batch as its data and its condition (None where there is none)."""
    cond = {name: value for name, value in batch.items() if name != "x"}
    return batch["x"], cond or None


def unconditional(loss: LossFn) -> LossFn:
    """A loss that is given the data alone: the labels or captions beside it are left aside.

    Args:
      loss: of a network without conditions, which refuses any.

    Returns:
      A `LossFn` with the same context; of the batch it uses "x".
    """

    def alone(params, key, batch, **context):
        return loss(params, key, {"x": batch["x"]}, **context)

    return alone


def _errors(
    network: Network, schedule: Schedule, parameterization: Parameterization, density: TimeDensity
):
    """(params, key, batch, state) -> t, importance and |x0_hat - x0|^2, each (B,)."""
    check_trainable(schedule, parameterization)

    def errors(params, key, batch, density_state):
        x0, cond = split_batch(batch)
        t_key, eps_key, network_key = jax.random.split(key, 3)
        t, importance = density.draw(t_key, x0.shape[0], density_state)
        x_t = q_sample(schedule, x0, t, jax.random.normal(eps_key, x0.shape))
        denoiser = make_denoiser(network, params, schedule, parameterization, network_key)
        return t, importance, per_sample_mean((denoiser(x_t, t, cond).x0 - x0) ** 2)

    return errors


def denoising_loss(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    weighting,
    density: TimeDensity,
) -> LossFn:
    """E_{t, eps} of w(logsnr(t)) |x0_hat(x_t, t) - x0|^2, averaged over elements.

    With `predict_eps` and `weighting.snr` this is L_simple (Ho et al. 2020, Eq. 14), with
    `predict_v` and `weighting.snr_plus_one` the v-loss (Salimans & Ho 2022).

    Args:
      network: (params, x, c_noise, cond, key) -> raw output.
      schedule: the noise schedule.
      parameterization: what the network predicts.
      weighting: logsnr -> weight of the squared error of x0.
      density: how times are drawn.

    Returns:
      A `LossFn`; a density with a state needs `density_state=density.init()` in the context.

    Raises:
      InputError: the parameterization is not finite at an end of the schedule, such as that of
        eps at a zero terminal SNR; so for every loss of a denoiser.
    """
    errors = _errors(network, schedule, parameterization, density)

    def loss(params, key, batch, density_state=()):
        t, importance, error = errors(params, key, batch, density_state)
        losses = weighting(logsnr(schedule, t)) * error
        state = density.update(density_state, t, jax.lax.stop_gradient(losses))
        return jnp.mean(importance * losses), {"context": {"density_state": state}}

    return loss


def learned_uncertainty(
    network: Network,
    uncertainty,
    schedule: Schedule,
    parameterization: Parameterization,
    weighting,
    density: TimeDensity,
) -> LossFn:
    """E of exp(-u) w |x0_hat - x0|^2 + u with u(logsnr) trained: Karras et al. 2024 (EDM2), Eq. 21.

    At its best u is the logarithm of the weighted error at that noise level, so that every
    level has a loss of the same size, whatever w.

    Args:
      network: (params, x, c_noise, cond, key) -> raw output.
      uncertainty: (params, logsnr (B,)) -> u (B,), such as a small network or a table.
      schedule: the noise schedule.
      parameterization: what the network predicts.
      weighting: logsnr -> weight of the squared error of x0, e.g. `weighting.edm_weight()`.
      density: how times are drawn.

    Returns:
      A `LossFn` of params {"network": ..., "uncertainty": ...}; aux has `weighted`, the loss
      that `denoising_loss` would report. The context is that of `denoising_loss`.
    """
    errors = _errors(network, schedule, parameterization, density)

    def loss(params, key, batch, density_state=()):
        t, importance, error = errors(params["network"], key, batch, density_state)
        level = logsnr(schedule, t)
        u, losses = uncertainty(params["uncertainty"], level), weighting(level) * error
        state = density.update(density_state, t, jax.lax.stop_gradient(losses))
        aux = {"weighted": jnp.mean(importance * losses), "context": {"density_state": state}}
        return jnp.mean(importance * (jnp.exp(-u) * losses + u)), aux

    return loss


def _normal_cdf(z: Array) -> Array:
    """The tanh approximation of the normal distribution function (Page 1977), within 2e-4."""
    return (1 + jnp.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))) / 2


def discretized_gaussian_log_likelihood(x: Samples, mean: Samples, log_scale: Array) -> Samples:
    """Log-probability of 8-bit data under a Gaussian integrated over each bin: DDPM Eq. 13.

    Bins are 2/255 wide around each value in [-1, 1]; the first and last are open. The
    distribution function is approximate and probabilities are at least 1e-12, both as in
    the released code of Ho et al. and Nichol & Dhariwal, so that bits/dim compare.

    Args:
      x: data on the grid k/127.5 - 1.
      mean: means.
      log_scale: logarithm of the standard deviation.

    Returns:
      Natural logarithm per element.
    """
    inverse = jnp.exp(-log_scale)
    upper, lower = (x - mean + 1 / 255) * inverse, (x - mean - 1 / 255) * inverse
    upper, lower = jnp.where(x > 0.999, OPEN, upper), jnp.where(x < -0.999, -OPEN, lower)
    return jnp.log(jnp.maximum(_normal_cdf(upper) - _normal_cdf(lower), 1e-12))


def vb_term(
    schedule: Schedule,
    denoise: BoundDenoiser,
    log_variance,
    x0: Samples,
    x_t: Samples,
    t: Time,
    s: Time,
) -> PerSample:
    """One term of the variational bound, in bits per dimension: Ho et al. 2020, Eq. 5.

    KL(q(x_s | x_t, x0) || p(x_s | x_t)), or where s is clean the negative log-likelihood
    of the discretised decoder.

    Args:
      schedule: the noise schedule.
      denoise: the model.
      log_variance: reverse variance, one of `diffusion.log_variance_*`.
      x0: 8-bit data in [-1, 1].
      x_t: a draw of q(x_t | x0).
      t: later time, a scalar or (B,).
      s: earlier time, t's shape.

    Returns:
      Bits per dimension (B,).
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    prediction = denoise(x_t, t)
    true_mean, _, true_log_variance = q_posterior(schedule, x0, x_t, t, s)
    mean, _, _ = q_posterior(schedule, prediction.x0, x_t, t, s)
    model_log_variance = per_sample(log_variance(schedule, t, s, prediction), x0)
    kl = gaussian_kl(true_mean, per_sample(true_log_variance, x0), mean, model_log_variance)
    nll = -discretized_gaussian_log_likelihood(x0, mean, model_log_variance / 2)
    return per_sample_mean(jnp.where(per_sample(schedule.sigma(s) == 0, x0), nll, kl)) / np.log(2)


def prior_term(schedule: Schedule, x0: Samples) -> PerSample:
    """KL(q(x_T | x0) || prior) in bits per dimension: L_T of Ho et al. 2020, Eq. 5.

    The prior is N(0, sigma(t_max)^2 I), which is N(0, I) up to alpha(t_max)^2 for VP.

    Args:
      schedule: the noise schedule.
      x0: data (B, ...).

    Returns:
      Bits per dimension (B,).
    """
    t = jnp.asarray(schedule.t_max)
    log_variance = 2 * jnp.log(schedule.sigma(t))
    kl = gaussian_kl(schedule.alpha(t) * x0, log_variance, 0.0, log_variance)
    return per_sample_mean(kl) / np.log(2)


def hybrid_loss(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    T: int = 1000,
) -> LossFn:
    """L_simple + (T/1000) L_vb for a learned-range variance: Nichol & Dhariwal 2021, Eq. 16.

    The mean is held constant inside L_vb, which therefore trains the variance alone; the
    factor (their 0.001 times the T terms of the bound) is that of their released code.

    Args:
      network: has twice the channels of x in its output.
      schedule: the noise schedule of a beta table of T steps.
      parameterization: what the network's first half predicts.
      density: how times are drawn; they are rounded to the steps k/T (`weighting.on_steps`).
      T: number of steps.

    Returns:
      A `LossFn` like that of `denoising_loss`; aux has the two parts, `mse` and `vb`.
    """
    check_trainable(schedule, parameterization)
    density = on_steps(density, schedule, T)

    def loss(params, key, batch, density_state=()):
        x0, cond = split_batch(batch)
        t_key, eps_key, network_key = jax.random.split(key, 3)
        t, importance = density.draw(t_key, x0.shape[0], density_state)
        eps = jax.random.normal(eps_key, x0.shape)
        x_t = q_sample(schedule, x0, t, eps)
        denoiser = make_denoiser(network, params, schedule, parameterization, network_key)
        prediction = denoiser(x_t, t, cond)
        mse, vb = hybrid_terms(schedule, prediction, x0, x_t, t, eps, T)
        state = density.update(density_state, t, jax.lax.stop_gradient(mse + vb))
        aux = {"mse": jnp.mean(mse), "vb": jnp.mean(vb), "context": {"density_state": state}}
        return jnp.mean(importance * (mse + vb)), aux

    return loss


def hybrid_terms(
    schedule: Schedule,
    prediction: Prediction,
    x0: Samples,
    x_t: Samples,
    t: Time,
    eps: Samples,
    T: int,
) -> tuple[PerSample, PerSample]:
    """The two parts of `hybrid_loss` per sample: squared error of eps, and T/1000 of L_vb.

    Args:
      schedule: the noise schedule of a beta table of T steps.
      prediction: what the network said of x_t, with its variance.
      x0: data.
      x_t: alpha x0 + sigma eps.
      t: times k/T, (B,).
      eps: the noise in x_t.
      T: number of steps.

    Returns:
      (mse, vb), each (B,); vb in bits per dimension.
    """
    mse = per_sample_mean((eps_from_x0(schedule, x_t, t, prediction.x0) - eps) ** 2)
    frozen = prediction._replace(x0=jax.lax.stop_gradient(prediction.x0))
    s = jnp.round(t * T - 1) / T
    vb = vb_term(schedule, lambda x, t: frozen, log_variance_learned, x0, x_t, t, s)
    return mse, vb * (T / 1000)
