"""Guidance by a classifier of noisy data."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    Network,
    Params,
    Schedule,
    Time,
    per_sample,
)


def classifier(
    denoiser: Denoiser,
    log_prob: Callable[[Array, Array, Cond], Array],
    scale: Time,
    schedule: Schedule,
) -> Denoiser:
    """eps - scale sigma grad log p(y | x_t): Dhariwal & Nichol 2021, Eq. 14.

    Of x0 that is x0 + scale sigma^2/alpha grad log p(y | x_t). With a scale of 1 and the true
    p(y | x_t) the result is the conditional denoiser. Undefined where alpha is 0.

    Args:
      denoiser: of all data, or already conditional.
      log_prob: (x_t, t (B,), cond) -> log p(y | x_t) (B,), of a classifier of noisy data, such
        as `label_log_prob(...)`.
      scale: a scalar or one per sample; may be a traced value.
      schedule: the noise schedule.

    Returns:
      The guided denoiser; a learned variance stays as it is.
    """

    def guided(x, t, cond):
        t = jnp.broadcast_to(t, x.shape[:1])
        out = denoiser(x, t, cond)
        gradient = jax.grad(lambda x: log_prob(x, t, cond).sum())(x)
        step = scale * schedule.sigma(t) ** 2 / schedule.alpha(t)
        return out._replace(x0=out.x0 + per_sample(step, x) * gradient)

    return guided


def label_log_prob(
    network: Network, params: Params, c_noise: Callable[[Array], Array]
) -> Callable[[Array, Array, Cond], Array]:
    """The `log_prob` of a network whose output is the logits of a label.

    Args:
      network: (params, x, c_noise (B,), cond, key) -> logits (B, classes).
      params: its parameters.
      c_noise: t -> the time that it is given, e.g. `lambda t: 1000 * t - 1` where that is the
        step of a beta table.

    Returns:
      (x_t, t (B,), cond) -> log p(cond["label"] | x_t) (B,).
    """

    def log_prob(x, t, cond):
        logits = network(params, x, c_noise(t), None, None)
        label = cond["label"][:, None]
        return jnp.take_along_axis(jax.nn.log_softmax(logits), label, axis=1)[:, 0]

    return log_prob
