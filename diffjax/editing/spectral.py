"""Inverse problems in the range and null space of the operator: DDNM, DDNM+ and DDRM."""

import jax.numpy as jnp

from diffjax.diffusion import eps_from_x0
from diffjax.editing.operators import LinearOperator, on_data, pseudo_inverse
from diffjax.editing.posterior import check_measurement
from diffjax.types import Array, Sampler, Samples, Scalar, Schedule


def ddnm(
    schedule: Schedule,
    operator: LinearOperator,
    y: Array,
    noise_std: Scalar = 0.0,
    eta: Scalar = 0.85,
) -> Sampler:
    """DDNM+: x0_hat is corrected in the range of A': Wang et al. 2023.

    x0' = x0_hat + Sigma A+ (y - A x0_hat), x_s = alpha_s x0' + noise (Eq. 17-19 of the paper). For
    each singular value, tau = alpha_s sigma_y / singular value. Where sigma_s is at least tau,
    Sigma is 1 and the noise has variance sigma_s^2 - tau^2. Elsewhere Sigma is
    sqrt(1 - eta^2) sigma_s / tau and the noise has the deviation eta sigma_s. Without measurement
    noise it is DDNM.
    Where s is above t, `walk` renoises the last x0_hat: the paper's time travel.

    Args:
      schedule: the noise schedule.
      operator: A.
      y: measurements (B, ...).
      noise_std: sigma_y.
      eta: share of new noise where nothing is measured, 0 to 1.

    Returns:
      A sampler of one draw per step, for `sample` or `walk`.

    Raises:
      InputError: when started, if y is not of the operator's shape.
    """

    def init(x, ts):
        check_measurement(operator.apply, x, y)
        return jnp.zeros_like(x)

    def step(noise, denoise, x, t, s, last):
        up = s > t
        alpha, sigma = schedule.alpha(s), schedule.sigma(s)
        noisy = jnp.where(schedule.sigma(t) > 0, t, schedule.t_max)  # a move up may be from clean
        x0 = denoise(x, noisy).x0
        eps = eps_from_x0(schedule, x, noisy, x0)
        rest = pseudo_inverse(operator, y - operator.apply(x0))

        def threshold(e):  # alpha_s sigma_y over the singular value, for eigenvalues above 0
            return alpha * noise_std / jnp.sqrt(jnp.where(e > 1e-9, e, 1))

        def gain(e):
            tau = threshold(e)
            damped = jnp.sqrt(1 - eta**2) * sigma / jnp.where(tau > 0, tau, 1)
            return jnp.where(sigma >= tau, 1, damped)

        def fresh(e):
            tau = threshold(e)
            above = jnp.sqrt(jnp.maximum(sigma**2 - tau**2, 0))
            measured = jnp.where(sigma >= tau, above, eta * sigma)
            plain = eta * sigma if noise_free else measured
            return jnp.where(e > 1e-9, plain, eta * sigma)

        def kept(e):
            plain = jnp.sqrt(1 - eta**2) * sigma
            return plain if noise_free else jnp.where(e > 1e-9, 0, plain)

        noise_free = isinstance(noise_std, int | float) and noise_std == 0
        mean = alpha * (x0 + on_data(operator, gain, rest))
        if noise_free:
            down = mean + eta * sigma * noise[0] + jnp.sqrt(1 - eta**2) * sigma * eps
        else:
            down = mean + on_data(operator, fresh, noise[0])
            down = down + on_data(operator, kept, eps)
        renoised = alpha * last + sigma * noise[0]
        return jnp.where(up, renoised, down), jnp.where(up, last, x0)

    return Sampler(init, step, draws=1)


def ddrm_start(
    schedule: Schedule,
    operator: LinearOperator,
    y: Array,
    noise_std: Scalar,
    t: Array,
    noise: Samples,
) -> Samples:
    """The start of `ddrm`: measured directions begin at the measurement: Kawar et al. 2022, Eq. 4.

    Args:
      schedule: the noise schedule.
      operator: A.
      y: measurements.
      noise_std: sigma_y.
      t: where sampling begins.
      noise: standard normal, of the data's shape.

    Returns:
      x at t, noise's shape.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)

    def std(e):
        tau = alpha * noise_std / jnp.sqrt(jnp.where(e > 1e-9, e, 1))
        seen = (e > 1e-9) & (sigma >= tau)
        return jnp.where(seen, jnp.sqrt(jnp.maximum(sigma**2 - tau**2, 0)), sigma)

    def mean(e):
        tau = alpha * noise_std / jnp.sqrt(jnp.where(e > 1e-9, e, 1))
        return jnp.where((e > 1e-9) & (sigma >= tau), alpha, 0)

    measured = pseudo_inverse(operator, y)
    drawn = on_data(operator, std, noise)
    return drawn + on_data(operator, mean, measured)


def ddrm(
    schedule: Schedule,
    operator: LinearOperator,
    y: Array,
    noise_std: Scalar,
    eta: Scalar = 0.85,
    eta_b: Scalar = 1.0,
) -> Sampler:
    """DDRM: each singular direction is sampled by how much its measurement says: Kawar et al. 2022.

    Eq. 7-8 of the paper, in units of x_s: with tau = alpha_s sigma_y / singular value,
    nothing measured: alpha_s x0_hat + sqrt(1 - eta^2) sigma_s eps_hat + eta sigma_s z;
    sigma_s < tau: alpha_s x0_hat + sqrt(1 - eta^2) sigma_s (alpha_s ybar - alpha_s x0_hat)/tau +
    eta sigma_s z; else alpha_s ((1 - eta_b) x0_hat + eta_b ybar) +
    sqrt(sigma_s^2 - tau^2 eta_b^2) z.

    Args:
      schedule: the noise schedule.
      operator: A.
      y: measurements (B, ...).
      noise_std: sigma_y.
      eta: 0 to 1, for directions that say little.
      eta_b: 0 to 1, share of the measurement in directions that say much.

    Returns:
      A sampler of one draw per step; it begins at `ddrm_start`.

    Raises:
      InputError: when started, if y is not of the operator's shape.
    """

    def init(x, ts):
        check_measurement(operator.apply, x, y)
        return ()

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0
        eps = eps_from_x0(schedule, x, t, x0)
        alpha, sigma = schedule.alpha(s), schedule.sigma(s)
        towards = pseudo_inverse(operator, y - operator.apply(x0))

        def threshold(e):
            return alpha * noise_std / jnp.sqrt(jnp.where(e > 1e-9, e, 1))

        def pull(e):
            tau = threshold(e)
            little = jnp.sqrt(1 - eta**2) * sigma * alpha / jnp.where(tau > 0, tau, 1)
            return jnp.where(sigma < tau, little, alpha * eta_b)

        def fresh(e):
            tau = threshold(e)
            much = jnp.sqrt(jnp.maximum(sigma**2 - (tau * eta_b) ** 2, 0))
            return jnp.where((e > 1e-9) & (sigma >= tau), much, eta * sigma)

        def kept(e):
            return jnp.where(e > 1e-9, 0, jnp.sqrt(1 - eta**2) * sigma)

        parts = zip((pull, fresh, kept), (towards, noise[0], eps), strict=True)
        moved = sum(on_data(operator, f, part) for f, part in parts)
        return alpha * x0 + moved, state

    return Sampler(init, step, draws=1)
