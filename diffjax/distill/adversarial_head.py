"""The adversarial head of distribution matching: the critic's features tell data from samples."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample
from diffjax.losses import Game, non_saturating
from diffjax.types import (
    Array,
    Cond,
    Parameterization,
    Params,
    PRNGKeyArray,
    Samples,
    Scalar,
    Schedule,
    TimeDensity,
    per_sample,
)


class Terms(NamedTuple):
    """What is added to each player's loss.

    Attributes:
      generator: its gradient is of the generated samples alone.
      critic: its gradient is of the critic and of the head alone.
    """

    generator: Scalar
    critic: Scalar


Adversary = Callable[[Params, PRNGKeyArray, Samples, Samples, Cond], Terms]
"""(params, key, generated samples, data, cond) -> terms."""


def no_adversary(params, key, x, x0, cond) -> Terms:
    """Distribution matching alone."""
    return Terms(jnp.zeros(()), jnp.zeros(()))


def adversarial_head(
    discriminate: Callable[[Params, Array, Array, Cond], Array],
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    weights: tuple[float, float] = (3e-3, 1e-2),
    game: Game = non_saturating,
) -> Adversary:
    """-log D(x_t) for the generator, -log D(x0_t) - log(1 - D(x_t)) for the critic and the head.

    Yin et al. 2024 (DMD2), section 4.3, Eq. 4: both are noised to one time, and D is the head on a
    layer of the critic, so that it is trained with the critic.

    Args:
      discriminate: (params, x, c_noise, cond), as a network is given them -> logits of any shape,
        above 0 for data; from `with_head`.
      schedule: the noise schedule.
      parameterization: of the critic's network.
      density: of the times, one without state.
      weights: of the generator's term and of the critic's; theirs for ImageNet.
      game: what the players minimise.

    Returns:
      An adversary of params {"generator", "critic", "head"}.
    """
    of_generator, of_critic = weights

    def adversary(params, key, x, x0, cond):
        time_key, *eps_keys = jax.random.split(key, 3)
        t, _ = density.draw(time_key, x0.shape[0], density.init())
        noised = lambda key, x: q_sample(  # noqa: E731
            schedule, x, t, jax.random.normal(key, x.shape, x.dtype)
        )
        fake, real = (noised(*pair) for pair in zip(eps_keys, (x, x0), strict=True))

        def logits(params, x_t):
            c = parameterization(schedule, t)
            c_noise = jnp.broadcast_to(c.c_noise, x.shape[:1])
            return discriminate(params, per_sample(c.c_in, x) * x_t, c_noise, cond)

        still = jax.lax.stop_gradient
        fools = game.generator(logits(still(params), fake))
        tells = game.discriminator(logits(params, real), logits(params, still(fake)))
        return Terms(of_generator * fools, of_critic * tells)

    return adversary
