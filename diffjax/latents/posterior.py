"""Gaussian posteriors of latents, and draws of them."""

import jax
import jax.numpy as jnp

from diffjax.types import Anyshape, PRNGKeyArray


def reparameterize(mean: Anyshape, logvar: Anyshape, eps: Anyshape) -> Anyshape:
    """mean + exp(logvar / 2) eps: Kingma & Welling 2014.

    Args:
      mean: of the posterior.
      logvar: natural logarithm of its variance; -inf for a point.
      eps: standard normal.

    Returns:
      A draw of N(mean, exp(logvar)).
    """
    return mean + jnp.exp(logvar / 2) * eps


def sample_posterior(key: PRNGKeyArray, mean: Anyshape, logvar: Anyshape) -> Anyshape:
    """A draw of N(mean, exp(logvar)), of the mean's shape and type."""
    return reparameterize(mean, logvar, jax.random.normal(key, mean.shape, mean.dtype))
