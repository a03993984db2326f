"""Schedules whose log-SNR is any monotone function, such as a trained network."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from diffjax.types import Array, Schedule


def _bisect(f: Callable[[Array], Array], value: Array, iterations: int) -> Array:
    """t in [0, 1] where the decreasing f has a value, by halving the interval."""

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        above = f(middle) > value
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    ends = jnp.zeros_like(value), jnp.ones_like(value)
    low, high = lax.fori_loop(0, iterations, halve, ends)
    return (low + high) / 2


def learned_vp(logsnr: Callable[[Array], Array], iterations: int = 40) -> Schedule:
    """Variance preserving, from a decreasing log-SNR on [0, 1]: Kingma et al. 2021, Eq. 2-4.

    alpha^2 = sigmoid(logsnr(t)) and sigma^2 = sigmoid(-logsnr(t)), where logsnr is -gamma of
    the paper, with `models.MonotoneLogSNR` for gamma. Both ends are finite, so that outside
    [0, 1] log-SNR goes on with slope -1, and the clean time is t = -inf (see `ve`).

    The inverse is bisection in a loop of fixed length, then one step of Newton's method,
    through which t has its derivatives in logsnr and in the parameters.

    Args:
      logsnr: times of any shape to log-SNR of that shape, strictly decreasing;
        `lambda t: module.apply(variables, t)` of a Linen module, parameters traced or not.
      iterations: halvings of [0, 1]; Newton's step then squares what is left.

    Returns:
      Schedule with t in [0, 1].
    """

    def extended(t):
        t = jnp.asarray(t, float)
        inside = (t >= 0) & (t <= 1)
        nearest = jnp.where(inside, t, jnp.where(t < 0, 0.0, 1.0))
        return logsnr(nearest) - jnp.where(inside, 0.0, t - nearest)

    def t_from_logsnr(value):
        value = jnp.asarray(value, float)
        high, low = logsnr(jnp.zeros_like(value)), logsnr(jnp.ones_like(value))
        within = lax.stop_gradient((value <= high) & (value >= low))
        target = jnp.where(within, value, (high + low) / 2)
        t = lax.stop_gradient(_bisect(logsnr, target, iterations))
        height, slope = jax.jvp(logsnr, (t,), (jnp.ones_like(t),))
        t = t + (target - height) / lax.stop_gradient(slope)
        return jnp.where(within, t, jnp.where(value > high, high - value, 1 + low - value))

    return Schedule(
        alpha=lambda t: jnp.exp(-jax.nn.softplus(-extended(t)) / 2),
        sigma=lambda t: jnp.exp(-jax.nn.softplus(extended(t)) / 2),
        t_from_logsnr=t_from_logsnr,
        t_min=0.0,
        t_max=1.0,
    )
