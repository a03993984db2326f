"""From 8-bit data to a density: noise inside each bin, and what it costs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import sample_keys
from diffjax.types import Array, PerSample, PRNGKeyArray, Samples

HALF_BIN = 1 / 255  # the values k/127.5 - 1 are the middles of bins 2/255 wide

Dequantizer = Callable[[PRNGKeyArray, Array], tuple[Array, Array]]
"""(key, 8-bit data in [-1, 1]) -> (x, log q (B,)): a draw x within the bin of each value, and
its log-density in nats. Then -log2 P(x8) <= E[log2 q - log2 p(x)] for a density p."""


def no_dequantization(key: PRNGKeyArray, x8: Samples) -> tuple[Samples, PerSample]:
    """The data as they are, log q = 0: for real-valued data. A `Dequantizer`."""
    return x8, jnp.zeros(x8.shape[0], x8.dtype)


def uniform_dequantization(key: PRNGKeyArray, x8: Samples) -> tuple[Samples, PerSample]:
    """x8 + u with u uniform in the bin, log q = D log(255/2): Theis et al. 2016, Eq. 3-4.

    A `Dequantizer`.

    Args:
      key: consumed whole.
      x8: data on the grid k/127.5 - 1 (B, ...).

    Returns:
      x, in [-1 - 1/255, 1 + 1/255], and log q (B,).
    """

    def draw(key):
        return jax.random.uniform(key, x8.shape[1:], x8.dtype, -HALF_BIN, HALF_BIN)

    noise = jax.vmap(draw)(sample_keys(key, x8.shape[0]))
    return x8 + noise, jnp.full(x8.shape[0], _log_bins(x8), x8.dtype)


def variational_dequantization(
    model: Callable[[Array], tuple[Array, Array]],
) -> Dequantizer:
    """u = sigmoid(mean(x8) + scale(x8) eps) across the bin: Ho et al. 2019 (Flow++).

    log q(u | x8) = log N(eps; 0, I) - sum log scale - sum log u (1 - u), on bins of width 1.
    The bound is differentiable in the model, which is trained by its mean.

    Args:
      model: x8 -> (mean, log_scale) of the noise's logit, each of x8's shape; params bound.

    Returns:
      A `Dequantizer`.
    """

    def dequantize(key, x8):
        draw = jax.vmap(lambda key: jax.random.normal(key, x8.shape[1:], x8.dtype))
        eps = draw(sample_keys(key, x8.shape[0]))
        mean, log_scale = model(x8)
        logit = mean + jnp.exp(log_scale) * eps
        log_u = -(eps**2) / 2 - np.log(2 * np.pi) / 2 - log_scale
        log_u = log_u + jax.nn.softplus(logit) + jax.nn.softplus(-logit)
        log_q = jnp.sum(log_u.reshape(x8.shape[0], -1), axis=1) + _log_bins(x8)
        return x8 + HALF_BIN * jnp.tanh(logit / 2), log_q

    return dequantize


def _log_bins(x8: Array) -> float:
    """Log of the density 1/(2/255) of a uniform draw in each of D bins."""
    return int(np.prod(x8.shape[1:])) * -float(np.log(2 * HALF_BIN))
