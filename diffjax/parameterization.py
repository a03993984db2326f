"""What a network predicts, as four coefficients (Karras et al. 2022, Eq. 7).

x0_hat = c_skip(t) x_t + c_out(t) F(c_in(t) x_t, c_noise(t)): nothing else distinguishes
predicting eps, x0 or v, and the weight in front of the loss does the rest.
"""

import jax.numpy as jnp

from diffjax.types import (
    Array,
    Coefficients,
    Denoiser,
    Network,
    Parameterization,
    Params,
    Prediction,
    PRNGKeyArray,
    Schedule,
    per_sample,
)


def _scales(schedule: Schedule, t: Array) -> tuple[Array, Array, Array, Array]:
    """alpha, sigma, c_in (unit variance for unit data; 1 for VP) and c_noise (1000 t)."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha, sigma, 1 / jnp.sqrt(alpha**2 + sigma**2), 1000 * t


def predict_eps(schedule: Schedule, t: Array) -> Coefficients:
    """The network predicts eps (Ho et al. 2020, Eq. 15): x0_hat = (x_t - sigma F) / alpha.

    Undefined where alpha is 0: a schedule of zero terminal SNR needs x0 or v.

    Args:
      schedule: the noise schedule.
      t: times, any shape.

    Returns:
      Coefficients of t's shape; c_noise is 1000 t.
    """
    alpha, sigma, c_in, c_noise = _scales(schedule, t)
    return Coefficients(1 / alpha, -sigma / alpha, c_in, c_noise)


def predict_x0(schedule: Schedule, t: Array) -> Coefficients:
    """The network predicts x0 itself. Arguments and result as for `predict_eps`."""
    _, _, c_in, c_noise = _scales(schedule, t)
    return Coefficients(jnp.zeros_like(c_in), jnp.ones_like(c_in), c_in, c_noise)


def predict_v(schedule: Schedule, t: Array) -> Coefficients:
    """The network predicts v = alpha eps - sigma x0 (Salimans & Ho 2022, section 4).

    x0_hat = (alpha x_t - sigma F) / (alpha^2 + sigma^2), finite at alpha = 0 and sigma = 0.
    Arguments and result as for `predict_eps`.
    """
    alpha, sigma, c_in, c_noise = _scales(schedule, t)
    return Coefficients(alpha * c_in**2, -sigma * c_in**2, c_in, c_noise)


def make_denoiser(
    network: Network,
    params: Params,
    schedule: Schedule,
    parameterization: Parameterization,
    key: PRNGKeyArray | None = None,
) -> Denoiser:
    """The function that training and sampling share: (x_t, t, cond) -> Prediction.

    A network whose output has twice the channels of x also says the variance; the second
    half v' in [-1, 1] becomes `variance_fraction` (v' + 1) / 2, as in the released code of
    Nichol & Dhariwal 2021.

    Args:
      network: (params, x, c_noise (B,), cond, key) -> raw output.
      params: its parameters.
      schedule: the noise schedule.
      parameterization: one of the `predict_*`.
      key: for dropout when training; None when sampling.

    Returns:
      A denoiser that takes t as a scalar or (B,).
    """

    def denoiser(x, t, cond):
        t = jnp.asarray(t, jnp.promote_types(x.dtype, jnp.float32))
        c = parameterization(schedule, t)
        c_noise = jnp.broadcast_to(c.c_noise, x.shape[:1])
        raw = network(params, per_sample(c.c_in, x) * x, c_noise, cond, key).astype(t.dtype)
        fraction = None
        if raw.shape[-1] == 2 * x.shape[-1]:
            raw, variance = jnp.split(raw, 2, axis=-1)
            fraction = (variance + 1) / 2
        return Prediction(per_sample(c.c_skip, x) * x + per_sample(c.c_out, x) * raw, fraction)

    return denoiser
