"""Guidance and clipping: functions from denoiser to denoiser, and the training half of
classifier-free guidance, a function from loss to loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    Index,
    LossFn,
    Network,
    Params,
    Schedule,
    Time,
    per_sample,
)


def classifier_free(denoiser: Denoiser, scale: Time, null: dict[str, Array | int]) -> Denoiser:
    """uncond + scale (cond - uncond), in one call of twice the batch: Ho & Salimans 2022, Eq. 6.

    At a given x_t, eps and x0 are affine in each other, so guiding x0 is guiding eps. Their
    w is scale - 1: a scale of 1 is no guidance and 0 the unconditional model.

    Args:
      denoiser: trained with `label_dropout`.
      scale: a scalar or one per sample; may be a traced value.
      null: the null condition, each entry broadcast to the batch, e.g. {"label": 10}.

    Returns:
      The guided denoiser; a learned variance is the conditional one.
    """

    def guided(x, t, cond):
        nothing = {
            k: jnp.broadcast_to(jnp.asarray(null[k], v.dtype), v.shape) for k, v in cond.items()
        }
        both = {k: jnp.concatenate([v, nothing[k]]) for k, v in cond.items()}
        t = jnp.broadcast_to(t, x.shape[:1])
        out = denoiser(jnp.concatenate([x, x]), jnp.concatenate([t, t]), both)
        conditional, unconditional = jnp.split(out.x0, 2)
        fraction = out.variance_fraction
        fraction = None if fraction is None else jnp.split(fraction, 2)[0]
        x0 = unconditional + per_sample(scale, x) * (conditional - unconditional)
        return out._replace(x0=x0, variance_fraction=fraction)

    return guided


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


def label_dropout(loss: LossFn, null: Index, rate: float) -> LossFn:
    """Train without the label for a share of the samples: Ho & Salimans 2022, Alg. 1.

    Args:
      loss: any loss of batches with a `label` (B,).
      null: the null label, by convention the number of classes.
      rate: share of labels replaced, in [0, 1].

    Returns:
      A `LossFn` with the same context.
    """

    def dropped(params, key, batch, **context):
        drop_key, loss_key = jax.random.split(key)
        drop = jax.random.bernoulli(drop_key, rate, batch["label"].shape)
        return loss(
            params, loss_key, {**batch, "label": jnp.where(drop, null, batch["label"])}, **context
        )

    return dropped


def static_clip(denoiser: Denoiser, bound: float = 1.0) -> Denoiser:
    """Clip x0_hat to [-bound, bound] at every step, as in the released code of DDPM.

    Args:
      denoiser: any denoiser of data within the bound.
      bound: largest magnitude of the data.

    Returns:
      The clipped denoiser.
    """

    def clipped(x, t, cond):
        out = denoiser(x, t, cond)
        return out._replace(x0=jnp.clip(out.x0, -bound, bound))

    return clipped


def dynamic_threshold(denoiser: Denoiser, quantile: float = 0.995) -> Denoiser:
    """Clip x0_hat to its own quantile of |x0_hat| and rescale to [-1, 1]: Saharia et al. 2022.

    Imagen, section 2.3. A sample whose quantile is below 1 is clipped to [-1, 1] instead.

    Args:
      denoiser: any denoiser of data in [-1, 1].
      quantile: in (0, 1], taken per sample.

    Returns:
      The thresholded denoiser.
    """

    def thresholded(x, t, cond):
        out = denoiser(x, t, cond)
        flat = jnp.abs(out.x0).reshape(x.shape[0], -1)
        bound = per_sample(jnp.maximum(jnp.quantile(flat, quantile, axis=1), 1), x)
        return out._replace(x0=jnp.clip(out.x0, -bound, bound) / bound)

    return thresholded
