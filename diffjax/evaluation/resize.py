"""Resizing as two products with matrices of weights, in the conventions that FID's packages use."""

from collections.abc import Callable

import numpy as np

Weights = Callable[[int, int], np.ndarray]
"""(n, m) -> (m, n): the row of an output pixel holds its weights of the n input pixels."""


def resize(image: np.ndarray, size: tuple[int, int], weights: Weights) -> np.ndarray:
    """Image resized in float64 and clipped to [0, 255], not rounded.

    Args:
      image: (..., H, W, C), values in [0, 255].
      size: (h, w).
      weights: such as `antialiased(bicubic)`, `torch_bilinear` or `tf1_bilinear`.

    Returns:
      (..., h, w, C) float64.
    """
    rows, columns = (weights(n, m) for n, m in zip(np.shape(image)[-3:-1], size, strict=True))
    resized = np.einsum("ih,...hwc->...iwc", rows, np.asarray(image, np.float64))
    return np.clip(np.einsum("jw,...iwc->...ijc", columns, resized), 0, 255)


def box(x: np.ndarray) -> np.ndarray:
    """1 on (-1/2, 1/2]."""
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def bilinear(x: np.ndarray) -> np.ndarray:
    """1 - |x| on [-1, 1]."""
    return np.maximum(1 - np.abs(x), 0)


def bicubic(x: np.ndarray) -> np.ndarray:
    """Keys 1981's kernel with a = -1/2, on [-2, 2]."""
    x = np.abs(x)
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def lanczos(x: np.ndarray) -> np.ndarray:
    """sinc(x) sinc(x / 3) on [-3, 3)."""
    return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0)


SUPPORT = {box: 0.5, bilinear: 1.0, bicubic: 2.0, lanczos: 3.0}


def antialiased(kernel: Callable[[np.ndarray], np.ndarray]) -> Weights:
    """Weights as Pillow's: the kernel is widened by the factor of a reduction.

    Convention: half-pixel centres, weights beyond the edge dropped and the rest scaled to
    sum 1. clean-fid takes bicubic to 299 x 299, each channel in float.

    Args:
      kernel: `box`, `bilinear`, `bicubic` or `lanczos`.

    Returns:
      Weights for `resize`.
    """

    def weights(n: int, m: int) -> np.ndarray:
        step = n / m
        scale = max(step, 1.0)
        centres = (np.arange(m) + 0.5) * step
        first = np.maximum((centres - SUPPORT[kernel] * scale + 0.5).astype(int), 0)
        last = np.minimum((centres + SUPPORT[kernel] * scale + 0.5).astype(int), n)
        pixel = np.arange(n)
        table = kernel((pixel[None] - centres[:, None] + 0.5) / scale)
        table = np.where((pixel >= first[:, None]) & (pixel < last[:, None]), table, 0)
        return table / table.sum(axis=1, keepdims=True)

    return weights


def torch_bilinear(n: int, m: int) -> np.ndarray:
    """Weights with half-pixel centres and no antialiasing, as pytorch-fid's interpolation."""
    return _between(np.maximum((np.arange(m) + 0.5) * n / m - 0.5, 0), n)


def tf1_bilinear(n: int, m: int) -> np.ndarray:
    """Weights with output pixel i at i n / m, as in FID's original graph, StyleGAN's and EDM's."""
    return _between(np.arange(m) * n / m, n)


def _between(position: np.ndarray, n: int) -> np.ndarray:
    """Linear weights of the two pixels around each position."""
    low = np.minimum(position.astype(int), n - 1)
    share = position - low
    table = np.zeros((len(position), n))
    rows = np.arange(len(position))
    np.add.at(table, (rows, low), 1 - share)
    np.add.at(table, (rows, np.minimum(low + 1, n - 1)), share)
    return table
