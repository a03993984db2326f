"""Classifier-free guidance, and the one call of twice the batch that its variants share."""

import jax
import jax.numpy as jnp

from diffjax.guidance.null import Nulls, without
from diffjax.types import Array, Cond, Denoiser, Prediction, PyTree, Time, per_sample


def _interleave(first: PyTree, second: PyTree) -> PyTree:
    """Leaves (2B, ...) of pairs, side by side, so that a sharded batch stays on its devices."""
    return jax.tree.map(
        lambda a, b: jnp.stack([a, b], axis=1).reshape(2 * a.shape[0], *a.shape[1:]), first, second
    )


def predict_both(
    denoiser: Denoiser, x: Array, t: Time, cond: Cond, other: Cond
) -> tuple[Prediction, Prediction]:
    """The predictions under two conditions, by one call of twice the batch.

    Args:
      denoiser: any denoiser.
      x: samples (B, ...); B may be symbolic.
      t: times, a scalar or (B,).
      cond: the first condition.
      other: the second, of the same names and shapes.

    Returns:
      The prediction under `cond` and that under `other`.
    """
    t = jnp.broadcast_to(t, x.shape[:1])
    out = denoiser(_interleave(x, x), _interleave(t, t), _interleave(cond, other))
    pairs = jax.tree.map(lambda a: a.reshape(x.shape[0], 2, *a.shape[1:]), out)
    return jax.tree.map(lambda a: a[:, 0], pairs), jax.tree.map(lambda a: a[:, 1], pairs)


def classifier_free(denoiser: Denoiser, scale: Time, null: Nulls) -> Denoiser:
    """uncond + scale (cond - uncond), in one call of twice the batch: Ho & Salimans 2022, Eq. 6.

    At a given x_t, eps, x0 and velocity are affine in each other, so guiding one is guiding
    all. Their w is scale - 1: a scale of 1 is no guidance and 0 the unconditional model.

    Args:
      denoiser: trained with `condition_dropout`.
      scale: a scalar or one per sample; may be a traced value.
      null: the null value of each condition, such as {"label": 10}; it broadcasts to the
        batch. A condition that is absent or None here, such as a mask or a low-resolution
        image, is the same in both halves.

    Returns:
      The guided denoiser; a learned variance is the conditional one.

    Raises:
      InputError: when called without a condition that has a null value, or with a null
        value that does not broadcast to its condition.
    """

    def guided(x, t, cond):
        conditional, unconditional = predict_both(denoiser, x, t, cond, without(null, cond))
        shift = conditional.x0 - unconditional.x0
        return conditional._replace(x0=unconditional.x0 + per_sample(scale, x) * shift)

    return guided
