"""Frequency-decoupled guidance: a scale for each level of a Laplacian pyramid."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.guidance.null import Nulls
from diffjax.guidance.pair import predict_both
from diffjax.types import Array, Denoiser, Scalar

BINOMIAL = np.asarray([1, 4, 6, 4, 1]) / 16


def _blur(x: Array) -> Array:
    """The binomial filter of width 5 along rows and columns, mirrored at the border."""
    for axis in (1, 2):
        widths = [(2, 2) if i == axis else (0, 0) for i in range(4)]
        padded, n = jnp.pad(x, widths, mode="reflect"), x.shape[axis]
        taps = [jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(5)]
        x = sum(w * tap for w, tap in zip(BINOMIAL.tolist(), taps, strict=True))
    return x


def _resize(x: Array, height: int, width: int) -> Array:
    shape = (x.shape[0], height, width, x.shape[3])
    return jax.image.resize(x, shape, "linear", antialias=False)


def _expand(x: Array, like: Array) -> Array:
    return _blur(_resize(x, *like.shape[1:3]))


def pyramid(x: Array, levels: int) -> list[Array]:
    """The Laplacian pyramid of Burt & Adelson 1983, highest frequency first; the last is the rest.

    Args:
      x: images (B, H, W, C) of sides divisible by 2^(levels - 1), each at least 3 when halved.
      levels: number of levels.

    Returns:
      Arrays (B, H / 2^i, W / 2^i, C).
    """
    bands = []
    for _ in range(levels - 1):
        small = _resize(_blur(x), x.shape[1] // 2, x.shape[2] // 2)
        bands.append(x - _expand(small, x))
        x = small
    return [*bands, x]


def collapse(bands: Sequence[Array]) -> Array:
    """The images of a pyramid."""
    x = bands[-1]
    for band in reversed(bands[:-1]):
        x = _expand(x, band) + band
    return x


def frequency_rule(cond: Array, uncond: Array, scales: Sequence[Scalar]) -> Array:
    """u + w_i (c - u) in each level i of a pyramid: Sadat et al. 2025 (FDG), Alg. 1.

    Args:
      cond: conditional prediction (B, H, W, C).
      uncond: unconditional prediction.
      scales: w of each level, highest frequency first.

    Returns:
      The guided prediction.
    """
    pairs = zip(pyramid(cond, len(scales)), pyramid(uncond, len(scales)), scales, strict=True)
    return collapse([u + w * (c - u) for c, u, w in pairs])


def frequency_decoupled(denoiser: Denoiser, scales: Sequence[Scalar], null: Nulls) -> Denoiser:
    """Guidance of a scale for each band of frequencies: Sadat et al. 2025 (FDG).

    It acts on x0, and so on eps and velocity alike: it is linear, and leaves what the two
    predictions share as it is.

    Args:
      denoiser: of images (B, H, W, C), trained with `condition_dropout`.
      scales: one per level, highest frequency first; may be traced values.
      null: the null value of each condition, as for `classifier_free`.

    Returns:
      The guided denoiser; a learned variance is the conditional one.
    """

    def guided(x, t, cond):
        conditional, unconditional = predict_both(denoiser, x, t, cond, null)
        x0 = frequency_rule(conditional.x0, unconditional.x0, scales)
        return conditional._replace(x0=x0)

    return guided
