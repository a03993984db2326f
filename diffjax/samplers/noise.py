"""The draws of one step, from independent ones."""

import jax.numpy as jnp

from diffjax.diffusion import safe_sqrt
from diffjax.types import Array, Sampler


def draw_noise(sampler: Sampler, noise: Array, t: Array, s: Array) -> Array:
    """Independent noise as the sampler wants it for t -> s: see `Sampler.inner`."""
    return noise if sampler.inner is None else path_noise(noise, sampler.inner(t, s))


def path_noise(noise: Array, ends: Array) -> Array:
    """The first draws as increments of one Brownian path, each over the root of its length.

    z'_j = sum_{i <= j} sqrt(l_i) z_i / sqrt(e_j), where e_j is where draw j ends and l_j =
    e_j - e_{j-1}: two draws that end at e < e' have correlation sqrt(e/e').

    Args:
      noise: independent standard-normal arrays (draws, *shape).
      ends: shares of the step (k,), increasing in (0, 1], k < draws; draw k ends at 1.

    Returns:
      Noise of the same shape, each draw standard normal; draws k + 1, ... as they are.
    """
    ends = jnp.append(ends, 1)
    lengths = jnp.diff(ends, prepend=0)
    weights = jnp.tril(safe_sqrt(lengths[None, :] / ends[:, None])).astype(noise.dtype)
    return jnp.concatenate([jnp.tensordot(weights, noise[: len(ends)], 1), noise[len(ends) :]])
