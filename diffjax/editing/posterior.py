"""Inverse problems by the gradient of what is measured of x0_hat: DPS and PiGDM."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import eps_from_x0, posterior_variance
from diffjax.editing.operators import LinearOperator, pseudo_inverse
from diffjax.errors import InputError
from diffjax.samplers.ancestral import ancestral
from diffjax.types import (
    Array,
    Denoiser,
    Prediction,
    Sampler,
    Samples,
    Scalar,
    Schedule,
    per_sample,
)


def check_measurement(apply: Callable[[Array], Array], x: Samples, y: Array) -> None:
    """Refuse a measurement of another shape than the operator's.

    Raises:
      InputError: with both shapes.
    """
    wanted = jax.eval_shape(apply, x).shape
    if wanted != jnp.shape(y):
        raise InputError(
            f"the measurement must have the operator's shape {wanted}; got {jnp.shape(y)}."
        )


def residual_norm_gradient(
    apply: Callable[[Array], Array], denoise: Callable[[Array], Array], x: Samples, y: Array
) -> tuple[Samples, Samples]:
    """x0_hat and the gradient in x_t of |y - A(x0_hat)|, each sample alone: Chung et al. 2023.

    Args:
      apply: A, linear or not, differentiable.
      denoise: x_t -> x0_hat.
      x: the samples at t.
      y: the measurements.

    Returns:
      x0_hat and the gradient, x's shape; the gradient is 0 where the residual is.
    """
    x0, pull = jax.vjp(denoise, x)
    measured, adjoint = jax.vjp(apply, x0)
    rest = measured - y
    norm = jnp.sqrt(jnp.sum(rest**2, axis=tuple(range(1, rest.ndim)), keepdims=True))
    unit = rest / jnp.where(norm > 0, norm, 1)
    return x0, pull(adjoint(unit)[0])[0]


def dps(
    schedule: Schedule,
    apply: Callable[[Array], Array],
    y: Array,
    scale: Scalar = 1.0,
    variance: str = "small",
) -> Sampler:
    """Diffusion posterior sampling: Chung et al. 2023, Algorithm 1.

    An ancestral step, minus scale times the gradient of |y - A(x0_hat)| at the old x. Its bias does
    not vanish with more steps.

    Args:
      schedule: the noise schedule.
      apply: A, differentiable; that of a `LinearOperator` too.
      y: measurements (B, ...).
      scale: step length zeta'.
      variance: of the ancestral step; see `samplers.ancestral`.

    Returns:
      A stochastic sampler, one denoiser call with its gradient per step.

    Raises:
      InputError: when started, if y is not of the operator's shape.
    """
    down = ancestral(schedule, variance)

    def init(x, ts):
        check_measurement(apply, x, y)
        return ()

    def step(noise, denoise, x, t, s, state):
        x0, gradient = residual_norm_gradient(apply, lambda x: denoise(x, t).x0, x, y)
        moved, _ = down.step(noise, lambda x, t: Prediction(x0), x, t, s, ())
        return moved - scale * gradient, state

    return Sampler(init, step, draws=1)


def guided_variance(schedule: Schedule, t: Array) -> Array:
    """r^2 = sigma^2/(alpha^2 + sigma^2), of x0 given x_t for unit data (PiGDM)."""
    return schedule.sigma(t) ** 2 / (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)


def pigdm(
    denoiser: Denoiser,
    schedule: Schedule,
    operator: LinearOperator,
    y: Array,
    noise_std: Scalar = 0.0,
    variance: Callable[[Schedule, Array], Array] = guided_variance,
) -> Denoiser:
    """Pseudo-inverse guidance as a denoiser: x0_hat + sigma^2/alpha times the score of y.

    The score is J' A' (r^2 A A' + sigma_y^2)^-1 (y - A x0_hat), J the derivative of x0_hat: Song et
    al. 2023 (PiGDM), Eq. 7-8. It is exact where data are normal with r^2 their variance given x_t.

    Args:
      denoiser: (x_t, t, cond) -> Prediction.
      schedule: the noise schedule.
      operator: A.
      y: measurements (B, ...).
      noise_std: sigma_y.
      variance: (schedule, t) -> r^2.

    Returns:
      A denoiser for any sampler, for alpha(t) above 0.
    """

    def guided(x, t, cond):
        check_measurement(operator.apply, x, y)
        t = jnp.asarray(t)
        x0, score = _x0_and_score(denoiser, schedule, operator, y, noise_std, x, t, cond, variance)
        return Prediction(x0 + per_sample(schedule.sigma(t) ** 2 / schedule.alpha(t), x) * score)

    return guided


def pigdm_score(
    denoiser: Denoiser,
    schedule: Schedule,
    operator: LinearOperator,
    y: Array,
    noise_std: Scalar,
    x: Samples,
    t: Array,
    cond=None,
    variance: Callable[[Schedule, Array], Array] = guided_variance,
) -> Samples:
    """The score of y given x_t under PiGDM's normal law, for one t of the batch; see `pigdm`."""
    return _x0_and_score(denoiser, schedule, operator, y, noise_std, x, t, cond, variance)[1]


def _x0_and_score(denoiser, schedule, operator, y, noise_std, x, t, cond, variance):
    """x0_hat and the score, of one call of the denoiser and its gradient."""
    x0, pull = jax.vjp(lambda x: denoiser(x, t, cond).x0, x)
    r2 = variance(schedule, t)
    rest = y - operator.apply(x0)
    solved = operator.function(lambda e: 1 / (r2 * e + noise_std**2 + 1e-30), rest)
    # Where nothing is measured (eigenvalue and noise 0) the residual is 0 as well.
    return x0, pull(operator.adjoint(solved))[0]


def pigdm_steps(
    schedule: Schedule, operator: LinearOperator, y: Array, eta: Scalar = 1.0
) -> Sampler:
    """PiGDM without measurement noise, in the steps of its authors' RED-diff release.

    x_s = alpha_s x0_hat + c1 z + c2 eps_hat + alpha_s alpha_t J'(A+ y - A+ A x0_hat), c1 being eta
    times the standard deviation of q(x_s | x_t, x0) and c1^2 + c2^2 = sigma_s^2.

    Args:
      schedule: the noise schedule, variance preserving.
      operator: A.
      y: measurements (B, ...).
      eta: 0 to 1.

    Returns:
      A sampler of one draw per step.
    """

    def step(noise, denoise, x, t, s, state):
        x0, pull = jax.vjp(lambda x: denoise(x, t).x0, x)
        eps = eps_from_x0(schedule, x, t, x0)
        rest = pseudo_inverse(operator, y - operator.apply(x0))
        gradient = pull(rest)[0]
        variance = eta**2 * jnp.maximum(posterior_variance(schedule, t, s), 0)
        direction = jnp.sqrt(jnp.maximum(schedule.sigma(s) ** 2 - variance, 0))
        mean = schedule.alpha(s) * x0 + direction * eps
        pushed = schedule.alpha(s) * schedule.alpha(t) * gradient
        return mean + jnp.sqrt(variance) * noise[0] + pushed, state

    return Sampler(lambda x, ts: (), step, draws=1)
