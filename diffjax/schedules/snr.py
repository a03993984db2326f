"""What every schedule has: a log signal-to-noise ratio, and a time without noise."""

import jax
import jax.numpy as jnp

from diffjax.types import Anyshape, Scalar, Schedule


def logsnr(schedule: Schedule, t: Anyshape | float) -> Anyshape:
    """Log signal-to-noise ratio, log(alpha^2 / sigma^2): Kingma et al. 2021, Eq. 3.

    Args:
      schedule: the noise schedule.
      t: times, any shape.

    Returns:
      Natural logarithm, t's shape; +inf where sigma is 0, -inf where alpha is 0.
    """
    t = jnp.asarray(t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    # Said of alpha itself: compiled, log(exp(a)) is a, finite where exp(a) is 0.
    signal = jnp.where(alpha == 0, -jnp.inf, jnp.log(jnp.where(alpha == 0, 1, alpha)))
    return 2 * (signal - jnp.log(sigma))


def clean_time(schedule: Schedule) -> Scalar:
    """The time at which sigma is 0, the end of every grid that reaches the data."""
    return schedule.t_from_logsnr(jnp.asarray(jnp.inf))


def zero_terminal_snr(schedule: Schedule) -> bool:
    """Whether alpha is exactly 0 at t_max, so that x there is pure noise (Lin et al. 2024).

    False for a schedule whose alpha is traced, such as one being learned: `learned_vp` has none.
    """
    with jax.ensure_compile_time_eval():
        alpha = schedule.alpha(jnp.asarray(schedule.t_max, float))
        return not isinstance(alpha, jax.core.Tracer) and bool(alpha == 0)
