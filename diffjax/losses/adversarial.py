"""Adversarial training as one loss: generator and discriminator in one tree of parameters.

params is {"generator": ..., "discriminator": ...}. Each half of the loss holds the other's
parameters constant, so that one gradient is both players' and one Optax transformation,
`optax.multi_transform`, is both optimizers.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.errors import InputError
from diffjax.losses.autoencoder import Objective
from diffjax.losses.denoising import split_batch
from diffjax.types import Array, LossFn, Params, PyTree, Scalar

Discriminate = Callable[[Params, Array], Array]
"""(params, x) -> logits of any shape, above 0 for real."""


class Game(NamedTuple):
    """What the two players minimise.

    Attributes:
      discriminator: (logits of real, logits of fake) -> scalar.
      generator: logits of fake -> scalar.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array], Array]


hinge = Game(
    lambda real, fake: jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)),
    lambda fake: -jnp.mean(fake),
)
"""E max(0, 1 - D(x)) + E max(0, 1 + D(x_hat)), and -E D(x_hat): Lim & Ye 2017."""

non_saturating = Game(
    lambda real, fake: jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)),
    lambda fake: jnp.mean(jax.nn.softplus(-fake)),
)
"""Cross-entropy of sigmoid(D), and -E log sigmoid(D(x_hat)): Goodfellow et al. 2014."""


def adaptive_weight(
    reconstruction: PyTree, adversarial: PyTree, delta: Scalar = 1e-6, limit: Scalar = 1e4
) -> Array:
    """lambda = |grad L_rec| / (|grad L_GAN| + delta): Esser et al. 2021, Eq. 7.

    Args:
      reconstruction: gradient of the reconstruction loss in the decoder's last layer.
      adversarial: that of the generator's adversarial loss in the same layer.
      delta: keeps the quotient finite.
      limit: largest result, as in their released code.

    Returns:
      A scalar in [0, limit], under which the two pull equally; no gradient passes.
    """
    quotient = optax.tree.norm(reconstruction) / (optax.tree.norm(adversarial) + delta)
    return jax.lax.stop_gradient(jnp.minimum(quotient, limit))


def adversarial_loss(
    objective: Objective,
    discriminate: Discriminate,
    last_layer: tuple[str, ...],
    game: Game = hinge,
    weight: Scalar = 1.0,
    start: int = 0,
) -> LossFn:
    """objective + weight lambda L_G for the generator, plus L_D for the discriminator.

    The optimizer wants one transformation per player:
    `optax.multi_transform({"generator": g, "discriminator": d}, {k: k for k in params})`.

    Args:
      objective: of the generator's parameters, `autoencoder.variational` or another.
      discriminate: (params["discriminator"], x) -> logits.
      last_layer: path in params["generator"] of the decoder's last kernel, such as
        ("decoder", "conv_out", "kernel"), for lambda (`adaptive_weight`).
      game: the players' losses.
      weight: of the adversarial term over what lambda gives it.
      start: calls of the loss before the adversarial terms count; where it is not 0, the
        initial context of the state is {"adversarial_step": jnp.zeros((), int)}.

    Returns:
      A `LossFn` of {"generator", "discriminator"}; aux has the objective's, `generator`,
      `discriminator` and `adaptive_weight`.

    Raises:
      InputError: start is negative; when called, start is above 0 and the context is missing.
    """
    if start < 0:
        raise InputError(f"adversarial_loss needs a start of at least 0; got {start}.")
    stop = jax.lax.stop_gradient

    def loss(params, key, batch, adversarial_step=None):
        if start and adversarial_step is None:
            raise InputError(
                f"adversarial_loss(start={start}) counts its calls in the training context, and "
                'got none; begin with the context {"adversarial_step": jnp.zeros((), int)}.'
            )
        step = 0 if adversarial_step is None else adversarial_step
        x, _ = split_batch(batch)
        flat, critic = flatten_dict(params["generator"]), params["discriminator"]

        def generate(leaf):
            result = objective(unflatten_dict({**flat, last_layer: leaf}), key, x)
            return (jnp.mean(result.distance), result.x_hat), result

        def fool(x_hat):
            return game.generator(discriminate(stop(critic), x_hat))

        # One forward pass, of which `pull` knows the last layer's gradient alone.
        (distance, x_hat), pull, result = jax.vjp(generate, flat[last_layer], has_aux=True)
        fooling, direction = jax.value_and_grad(fool)(x_hat)
        balance = adaptive_weight(
            pull((jnp.ones_like(distance), jnp.zeros_like(x_hat))),
            pull((jnp.zeros_like(distance), direction)),
        )
        telling = game.discriminator(discriminate(critic, x), discriminate(critic, stop(x_hat)))
        on = jnp.asarray(step >= start, distance.dtype)
        value = distance + jnp.mean(result.penalty) + on * (weight * balance * fooling + telling)
        return value, result.aux | {
            "generator": fooling,
            "discriminator": telling,
            "adaptive_weight": balance,
            "context": {"adversarial_step": step + 1},
        }

    return loss
