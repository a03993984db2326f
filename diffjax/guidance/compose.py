"""Guidance by several predictions: several conditions, or a weaker model."""

from collections.abc import Sequence

from diffjax.errors import InputError
from diffjax.guidance.null import Nulls, null_like, without
from diffjax.guidance.pair import predict_each
from diffjax.types import Cond, Denoiser, Time, per_sample


def compose(
    denoiser: Denoiser, conditions: Sequence[Cond], scales: Sequence[Time], null: Nulls
) -> Denoiser:
    """u + sum of w_i (c_i - u), in one call: Liu et al. 2022 (composable diffusion), Eq. 11.

    Of weights 1 and conditions independent given x0 (p(y1, y2 | x_t) a product) it is the
    denoiser given all of them; elsewhere the scores are those of a product of noised
    densities, which is not the noised product. A negative weight is "and not".

    Args:
      denoiser: trained with `condition_dropout`.
      conditions: each a dict of entries of the condition and their values, (B, ...) or without
        the batch; entries that it does not name are those of the call.
      scales: w_i, a scalar or one per sample; may be traced values.
      null: the null value of each condition, as for `classifier_free`.

    Returns:
      The guided denoiser; it is called with any condition of the right shapes.

    Raises:
      InputError: no conditions, or not one scale for each.
    """
    if not conditions or len(conditions) != len(scales):
        raise InputError(
            f"compose needs one scale for each of its conditions; got {len(conditions)} conditions "
            f"and {len(scales)} scales."
        )

    def guided(x, t, cond):
        given = [
            (cond or {}) | {k: null_like(k, v, cond[k]) for k, v in each.items()}
            for each in conditions
        ]
        unconditional, *each = predict_each(denoiser, x, t, [without(null, cond), *given])
        u = unconditional.x0
        shifts = [per_sample(w, x) * (c.x0 - u) for w, c in zip(scales, each, strict=True)]
        return each[0]._replace(x0=u + sum(shifts))

    return guided


def autoguidance(denoiser: Denoiser, weaker: Denoiser, scale: Time) -> Denoiser:
    """weaker + scale (denoiser - weaker): Karras et al. 2024 (guiding with a bad version).

    The weaker model may be smaller or less trained, or the same network with a layer skipped
    (skip-layer guidance) or its attention perturbed (perturbed-attention guidance). All are
    affine in x0, so that it is the same in every domain.

    Args:
      denoiser: the better model, conditional, guided or not.
      weaker: of the same data and schedule.
      scale: a scalar or one per sample; 1 is no guidance.

    Returns:
      The guided denoiser; a learned variance is that of `denoiser`.
    """

    def guided(x, t, cond):
        good, bad = denoiser(x, t, cond), weaker(x, t, cond)
        return good._replace(x0=bad.x0 + per_sample(scale, x) * (good.x0 - bad.x0))

    return guided
