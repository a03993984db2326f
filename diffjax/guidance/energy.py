"""Guidance by the gradient of an energy of the predicted data."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.types import Array, Cond, Denoiser, Schedule, Time, per_sample


def energy(
    denoiser: Denoiser,
    function: Callable[[Array, Cond], Array],
    scale: Time,
    schedule: Schedule,
) -> Denoiser:
    """x0_hat - scale sigma^2/alpha grad E(x0_hat(x_t)): Bansal et al. 2023, Eq. 6.

    It samples about p(x0) exp(-scale E(x0)), with E of the mean in place of the mean of E over
    x0 given x_t: exact where E is linear and the data Gaussian. Undefined where alpha is 0.

    Args:
      denoiser: any denoiser; its gradient in x_t is taken.
      function: (x0_hat (B, ...), cond) -> energies (B,), differentiable; minus a reward.
      scale: a scalar or one per sample; may be a traced value.
      schedule: the noise schedule.

    Returns:
      The guided denoiser; a learned variance stays as it is.
    """

    def guided(x, t, cond):
        t = jnp.broadcast_to(t, x.shape[:1])

        def total(x):
            out = denoiser(x, t, cond)
            return function(out.x0, cond).sum(), out

        gradient, out = jax.grad(total, has_aux=True)(x)
        step = scale * schedule.sigma(t) ** 2 / schedule.alpha(t)
        return out._replace(x0=out.x0 - per_sample(step, x) * gradient)

    return guided
