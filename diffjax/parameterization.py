"""What a network predicts, as four coefficients (Karras et al. 2022, Eq. 7).

x0_hat = c_skip(t) x_t + c_out(t) F(c_in(t) x_t, c_noise(t)): nothing else distinguishes
predicting eps, x0, v, the score or a velocity, and the weight in front of the loss does the rest.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import value_and_rate
from diffjax.errors import InputError
from diffjax.schedules import logsnr
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
    Time,
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


def predict_score(schedule: Schedule, t: Array) -> Coefficients:
    """The network predicts the score of p_t, -E[eps | x_t] / sigma (Vincent 2011, Eq. 10).

    x0_hat = (x_t + sigma^2 F) / alpha (Efron 2011, Eq. 1.4: Tweedie's formula). Undefined
    where alpha is 0. Arguments and result as for `predict_eps`.
    """
    alpha, sigma, c_in, c_noise = _scales(schedule, t)
    return Coefficients(1 / alpha, sigma**2 / alpha, c_in, c_noise)


def predict_velocity(schedule: Schedule, t: Array) -> Coefficients:
    """The network predicts dx_t/dt, alpha' x0 + sigma' eps (Lipman et al. 2023, Eq. 14).

    x0_hat = (sigma' x_t - sigma F) / (alpha sigma' - alpha' sigma), for `rectified_flow`
    x_t - t F, finite at alpha = 0. The velocity is per unit of the schedule's own time.
    Arguments and result as for `predict_eps`.
    """
    _, _, c_in, c_noise = _scales(schedule, t)
    alpha, alpha_rate = value_and_rate(schedule.alpha, t)
    sigma, sigma_rate = value_and_rate(schedule.sigma, t)
    turn = alpha * sigma_rate - alpha_rate * sigma
    return Coefficients(sigma_rate / turn, -sigma / turn, c_in, c_noise)


def edm_preconditioning(sigma_data: float = 0.5) -> Parameterization:
    """The network's input and target have unit variance at every t: Karras et al. 2022, Table 1.

    With r = sigma/alpha for the sigma of the table and y = x_t/alpha for its x:
    c_skip = sigma_data^2/(r^2 + sigma_data^2), c_out = r sigma_data/sqrt(r^2 + sigma_data^2),
    c_in = 1/sqrt(r^2 + sigma_data^2), c_noise = log(r)/4; c_skip and c_in are here
    for x_t itself, and finite where alpha is 0. c_noise is infinite where alpha or sigma is 0.

    Args:
      sigma_data: standard deviation of the data, positive.

    Returns:
      A parameterization.

    Raises:
      InputError: sigma_data is not positive.
    """
    if not isinstance(sigma_data, jax.core.Tracer) and not sigma_data > 0:
        raise InputError(f"edm_preconditioning needs a positive sigma_data; got {sigma_data}.")

    def coefficients(schedule, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = sigma**2 + alpha**2 * sigma_data**2
        return Coefficients(
            c_skip=alpha * sigma_data**2 / variance,
            c_out=sigma * sigma_data / jnp.sqrt(variance),
            c_in=1 / jnp.sqrt(variance),
            c_noise=-logsnr(schedule, t) / 8,
        )

    return coefficients


def at_steps(parameterization: Parameterization, T: int = 1000) -> Parameterization:
    """The same prediction by a network that is given the step k = 0 .. T - 1 of a beta table.

    c_noise = T t - 1, since step k of `from_betas` is t = (k + 1)/T: the time of networks
    published with DDPM, ADM, DiT and Stable Diffusion.

    Args:
      parameterization: what the network predicts.
      T: number of steps of its beta table.

    Returns:
      A parameterization.
    """

    def coefficients(schedule, t):
        return parameterization(schedule, t)._replace(c_noise=T * t - 1)

    return coefficients


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
      parameterization: one of the `predict_*`, or `edm_preconditioning(...)`.
      key: for dropout when training; None when sampling.

    Returns:
      A denoiser that takes t as a scalar or (B,).

    Raises:
      InputError: when called with a known time at which the parameterization is not finite,
        such as that of eps at a zero SNR. Also when the network's output has neither the
        shape of x nor twice its channels.
    """

    def denoiser(x, t, cond):
        _check_finite(schedule, parameterization, t)
        t = jnp.asarray(t, jnp.promote_types(x.dtype, jnp.float32))
        c = parameterization(schedule, t)
        c_noise = jnp.broadcast_to(c.c_noise, x.shape[:1])
        raw = network(params, per_sample(c.c_in, x) * x, c_noise, cond, key).astype(t.dtype)
        fraction = None
        if raw.shape == (*x.shape[:-1], 2 * x.shape[-1]):
            raw, variance = jnp.split(raw, 2, axis=-1)
            fraction = (variance + 1) / 2
        if raw.shape != x.shape:
            raise InputError(
                f"expected a network whose output has the shape of x, {x.shape}, or twice its "
                f"channels for a learned variance; got {raw.shape}. Give it as many output "
                "channels as the data has."
            )
        return Prediction(per_sample(c.c_skip, x) * x + per_sample(c.c_out, x) * raw, fraction)

    return denoiser


def _infinite(
    schedule: Schedule, parameterization: Parameterization, t: Time | Array | np.ndarray
) -> dict[str, np.ndarray]:
    """Where the coefficients that are not finite everywhere are not; traced ones are not known."""
    if isinstance(t, jax.core.Tracer):
        return {}
    with jax.ensure_compile_time_eval(), jax.debug_nans(False):
        c = parameterization(schedule, jnp.asarray(t, float))
        if any(isinstance(value, jax.core.Tracer) for value in c):  # of a schedule being learned
            return {}
        finite = {name: np.asarray(np.isfinite(value)) for name, value in c._asdict().items()}
        return {name: np.asarray(~where) for name, where in finite.items() if not where.all()}


def _check_finite(schedule: Schedule, parameterization: Parameterization, t: Time) -> None:
    """Refuse a known time of sampling at which a coefficient is infinite."""
    if infinite := _infinite(schedule, parameterization, t):
        raise InputError(
            f"{', '.join(infinite)} of this parameterization is not finite at t = {t}, as for eps "
            "and the score where the SNR is zero. Use a network that predicts v, x0 or the "
            "velocity, or a grid that begins later, such as grids.trailing(schedule, n + 1)[1:]."
        )


def check_trainable(
    schedule: Schedule,
    parameterization: Parameterization,
    times: Sequence[Time] | Array | None = None,
) -> None:
    """Refuse to train where a coefficient is infinite at an end of the schedule.

    A loss there is not finite, as of eps and the score where alpha is 0. A schedule whose
    parameters are traced is not looked at.

    Args:
      schedule: the noise schedule, with its range of training times.
      parameterization: what the network predicts.
      times: where it must be finite; default t_min and t_max.

    Raises:
      InputError: a coefficient is not finite at one of the times.
    """
    times = (schedule.t_min, schedule.t_max) if times is None else times
    times = times if isinstance(times, jax.Array) else np.asarray(times)
    if infinite := _infinite(schedule, jax.jit(parameterization, static_argnums=0), times):
        t = float(times[np.any(np.broadcast_arrays(times, *infinite.values())[1:], axis=0)][0])
        raise InputError(
            f"{', '.join(infinite)} of this parameterization is not finite at t = {t:g}, an "
            "end of the training times, as for eps and the score where the SNR is zero. "
            "Predict v, x0 or the velocity, or leave that end out, such as by "
            "schedule._replace(t_max=...)."
        )
