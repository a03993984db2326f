"""Edges of images (Canny 1986), as what a model is asked to draw along."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from diffjax.data.source import Source, with_array
from diffjax.errors import InputError

OUTWARD = ((0, 1), (1, 1), (1, 0), (1, -1))
"""(down, right) of the pixel across an edge whose gradient points at 0, 45, 90 or 135 degrees."""


def canny(image: np.ndarray, sigma: float = 1.0, low: float = 0.1, high: float = 0.3) -> np.ndarray:
    """Lines one pixel wide where an image changes most: Canny 1986, sections 6 to 8.

    A Gaussian blur, Sobel's gradient, the pixels whose gradient is the largest along its own
    direction, and of those the ones above `high` with all above `low` that touch them.

    Args:
      image: (H, W), or (H, W, C) whose channels are averaged; of any range.
      sigma: standard deviation of the blur, in pixels.
      low: share of the largest gradient below which there is no edge, in [0, high].
      high: share of it above which there is one, in (0, 1].

    Returns:
      (H, W) bool.

    Raises:
      InputError: thresholds that are not in order, or a sigma that is not positive.
    """
    if not (sigma > 0 and 0 <= low <= high <= 1 and high > 0):
        raise InputError(
            "canny: expected sigma > 0 and 0 <= low <= high <= 1 with high > 0; got "
            f"sigma = {sigma}, low = {low}, high = {high}."
        )
    gray = np.asarray(image, np.float64)
    gray = gray.mean(axis=-1) if gray.ndim == 3 else gray
    smooth = ndimage.gaussian_filter(gray, sigma, mode="nearest")
    down, right = (ndimage.sobel(smooth, axis, mode="nearest") for axis in (0, 1))
    size = np.hypot(down, right)
    if size.max() <= 1e-9 * max(np.abs(gray).max(), 1e-30):
        return np.zeros(size.shape, bool)
    thin = _largest_along(size, down, right)
    weak = thin & (size >= low * size.max())
    lines, count = ndimage.label(weak, np.ones((3, 3)))
    strong = np.zeros(count + 1, bool)
    strong[lines[thin & (size >= high * size.max())]] = True
    strong[0] = False
    return strong[lines]


def _largest_along(size: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pixels whose gradient is at least as large as that of both neighbours along it.

    Where two are equal the one further down or right stays, so that a line is one pixel wide.
    """
    eighth = np.round(np.arctan2(down, right) / (np.pi / 4)).astype(int) % 4
    margin = np.pad(size, 1)
    height, width = size.shape
    at = lambda i, j: margin[1 + i : 1 + i + height, 1 + j : 1 + j + width]  # noqa: E731
    # Rounding makes neighbours that are equal differ in their last digits.
    slack = 1e-9 * size.max()
    kept = np.zeros(size.shape, bool)
    for way, (i, j) in enumerate(OUTWARD):
        largest = (size >= at(-i, -j) - slack) & (size > at(i, j) + slack)
        kept |= (eighth == way) & largest
    return kept


def edges(
    size: int | None = None, sigma: float = 1.0, low: float = 0.1, high: float = 0.3
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from an image to the picture of its edges.

    Args:
      size: side to which a small image is enlarged first, by cubic splines, so that the lines
        are finer than its pixels; None leaves it.
      sigma: as for `canny`, in pixels of that side.
      low: as for `canny`.
      high: as for `canny`.

    Returns:
      image (H, W, C), uint8 or in [-1, 1], -> (size, size, 1) float32, 1 on edges and -1
      elsewhere.
    """

    def draw(image):
        gray = np.asarray(image, np.float64).mean(axis=-1)
        if size is not None:
            scale = [size / n for n in gray.shape]
            gray = ndimage.zoom(gray, scale, order=3, mode="nearest", grid_mode=True)
        return np.where(canny(gray, sigma, low, high), 1, -1).astype(np.float32)[..., None]

    return draw


def with_edges(
    source: Source, draw: Callable[[np.ndarray], np.ndarray], name: str = "edges"
) -> Source:
    """A source whose examples also have the edges of their image.

    Args:
      source: of images.
      draw: from `edges`.
      name: of the new array.

    Returns:
      The source; an example's edges are drawn when it is first read, and kept.
    """
    return with_array(source, name, draw)
