"""Convolutions in half the multiplications, for CPUs: Winograd 1980; Lavin & Gray 2016.

Four neighbouring rows of a convolution's output come from six rows of its input. Computed one by
one they take 4 x 3 products; F(4, 3) takes 6, of sums of rows with sums of taps. Here it acts
along the height alone: each product is a convolution of its own along the width, which XLA
computes as fast as any other, and rounding grows by a digit at most.

GPUs' libraries choose such forms by themselves, TPUs have no use for them; on a CPU nothing else
does it. `convolve`, which the networks here use, takes the form on CPUs alone.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from diffjax.types import Array

Convolve = Callable[..., Array]
"""(x, kernel, strides, padding, **options) -> y, as `jax.lax.conv_general_dilated` does."""

OF_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OF_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OF_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
"""B^T, G and A^T of F(4, 3): Lavin & Gray 2016, section 4.3."""

PIXELS, CHANNELS = 1024, 32
"""From how many pixels, of all images, and from how many channels the sums pay; measured."""


def convolve(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Array:
    """`winograd` where the program runs on a CPU, and `jax.lax.conv_general_dilated` elsewhere.

    The platform is that for which the program is compiled, not that of the process which traces
    it: one `jax.export` to several platforms holds either form for each.

    Args:
      x, kernel, strides, padding, **options: as of `winograd`.

    Returns:
      (B, H, W, features).
    """
    direct = jax.lax.conv_general_dilated
    fixed = {"window_strides": strides, "padding": padding, **options}
    if not _pays(x, kernel, strides, _pads(x, kernel, strides, padding), options):
        return direct(x, kernel, **fixed)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: winograd(x, kernel, strides, padding, **options),
        default=lambda x, kernel: direct(x, kernel, **fixed),
    )


def winograd(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Array:
    """`jax.lax.conv_general_dilated`, by Winograd's form where it pays.

    Y = A^T [(G g) * (B^T d)] along the height (Lavin & Gray 2016, Eq. 6). It pays for a kernel
    three high without strides, in float32 or float64, from 1024 pixels and 32 channels on; any
    other convolution is computed as usual.

    Args:
      x: images (B, H, W, C).
      kernel: (h, w, C, features).
      strides: of the window along height and width.
      padding: "SAME", "VALID", or zeros before and after each of them.
      **options: as of `jax.lax.conv_general_dilated`, NHWC and HWIO.

    Returns:
      (B, H, W, features), within rounding of the direct form.
    """
    direct = jax.lax.conv_general_dilated
    pads = _pads(x, kernel, strides, padding)
    if not _pays(x, kernel, strides, pads, options):
        return direct(x, kernel, strides, padding, **options)
    batch, height = x.shape[:2]
    x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    rows = [x[:, i : i + height - 3 : 4] for i in range(6)]
    taps = [kernel[i : i + 1] for i in range(3)]
    products = [
        direct(_sum(b, rows), _sum(g, taps), strides, ((0, 0), pads[1]), **options)
        for b, g in zip(OF_INPUT, OF_KERNEL, strict=True)
    ]
    y = jnp.stack([_sum(a, products) for a in OF_OUTPUT], axis=2)
    return y.reshape(batch, height, *y.shape[3:])


def _pads(x, kernel, strides, padding) -> Sequence[tuple[int, int]]:
    """Zeros before and after each of height and width."""
    if isinstance(padding, str):
        return jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return padding


def _pays(x, kernel, strides, pads, options) -> bool:
    """Whether the sums cost less than the products that they save."""
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    return (
        jnp.finfo(x.dtype).bits >= 32
        and kernel.shape[0] == 3
        and strides[0] == 1
        and tuple(pads[0]) == (1, 1)
        and x.shape[1] % 4 == 0
        and math.prod(x.shape[:3]) >= PIXELS
        and min(kernel.shape[2:]) >= CHANNELS
        and set(dilations) <= {1}
    )


def _sum(weights: Sequence[int | float], terms: Sequence[Array]) -> Array:
    """The weighted sum, without the terms of weight 0."""
    return sum(w * term for w, term in zip(weights, terms, strict=True) if w)
