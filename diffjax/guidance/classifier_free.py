"""Classifier-free guidance."""

from diffjax.guidance.null import Nulls
from diffjax.guidance.pair import predict_both
from diffjax.types import Denoiser, Time, per_sample


def classifier_free(denoiser: Denoiser, scale: Time, null: Nulls) -> Denoiser:
    """uncond + scale (cond - uncond), in one call of twice the batch: Ho & Salimans 2022, Eq. 6.

    At a given x_t, eps, x0 and velocity are affine in each other, so guiding one is guiding
    all. Their w is scale - 1: a scale of 1 is no guidance and 0 the unconditional model.

    Args:
      denoiser: trained with `condition_dropout`.
      scale: a scalar or one per sample; may be a traced value.
      null: the null value of each condition, such as {"label": 10}; it broadcasts to the
        batch. A condition that is absent or None here, such as a mask or a low-resolution
        image, is the same in both halves. A negative prompt is its value, (B, ...) or without
        the batch, in place of the null.

    Returns:
      The guided denoiser; a learned variance is the conditional one.

    Raises:
      InputError: when called without a condition that has a null value, or with a null
        value that does not broadcast to its condition.
    """

    def guided(x, t, cond):
        conditional, unconditional = predict_both(denoiser, x, t, cond, null)
        shift = conditional.x0 - unconditional.x0
        return conditional._replace(x0=unconditional.x0 + per_sample(scale, x) * shift)

    return guided
