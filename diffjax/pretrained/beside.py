"""What systems draw and read beside their latents: pictures joined to x_t, noise of their own."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from diffjax.diffusion import step_noise
from diffjax.types import Array, Keys, Network, PRNGKeyArray


def joined(network: Network, *names: str) -> Network:
    """The network of [x_t, pictures] as one of x_t.

    Args:
      network: of the channels of all together.
      names: of the pictures (B, h, w, ...) among its conditions, in their order.
    """

    def of_x(params, x, t, cond, key):
        cond = dict(cond)
        pictures = [cond.pop(name).astype(x.dtype) for name in names]
        return network(params, jnp.concatenate([x, *pictures], axis=-1), t, cond or None, key)

    return of_x


def own_key(seed: int) -> PRNGKeyArray:
    """A key of a seed that is none of the draw itself, which splits the seed's in two."""
    return jax.random.split(jax.random.key(seed), 3)[2]


def start_and_noise(keys: Keys, steps: int, shape: Sequence[int]) -> tuple[Array, Array]:
    """Standard normal numbers of a whole draw: (B, *shape) to start with, and those of its steps.

    Args:
      keys: one for each sample.
      steps: how many.
      shape: of one sample.

    Returns:
      The start, and (steps, 1, B, *shape).
    """
    like = jnp.zeros((len(keys), *shape))
    drawn = jax.vmap(lambda i: step_noise(keys, i, 1, like))(jnp.arange(steps + 1))
    return drawn[steps, 0], drawn[:steps]
