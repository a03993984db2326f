"""Pairs of an image and its reconstruction: PSNR and SSIM. rFID is `fid` of their features."""

import numpy as np
import scipy.ndimage

from diffjax.errors import InputError

RADIUS, SIGMA, K1, K2 = 5, 1.5, 0.01, 0.03


def psnr(x: np.ndarray, y: np.ndarray, data_range: float | int) -> np.ndarray:
    """10 log10(range^2 / mean squared error), of each pair.

    Convention: one value per image; the mean of these is not that of the mean error.

    Args:
      x: (B, H, W, C) images.
      y: (B, H, W, C) their counterparts.
      data_range: 255 for uint8, 2 for [-1, 1].

    Returns:
      (B,) in dB; inf where a pair is equal.

    Raises:
      InputError: two shapes.
    """
    x, y = _pair(x, y)
    error = ((x - y) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(data_range**2 / error)


def ssim(x: np.ndarray, y: np.ndarray, data_range: float | int) -> np.ndarray:
    """Structural similarity of each pair: Wang et al. 2004, Eq. 13.

    Convention: Gaussian window 11 x 11 of sigma 1.5, K 0.01 and 0.03, variances with n, mean
    over the pixels whose window lies inside the image, and over channels.

    Args:
      x: (B, H, W, C) images of at least 11 x 11 pixels.
      y: (B, H, W, C) their counterparts.
      data_range: 255 for uint8, 2 for [-1, 1].

    Returns:
      (B,) in [-1, 1].

    Raises:
      InputError: two shapes, or images smaller than the window.
    """
    x, y = _pair(x, y)
    if min(x.shape[1:3]) < 2 * RADIUS + 1:
        raise InputError(f"ssim needs images of at least 11 x 11 pixels; got {x.shape[1:3]}.")
    inner = slice(RADIUS, -RADIUS)
    return _ssim_map(x, y, data_range)[:, inner, inner].mean(axis=(1, 2, 3))


def ssim_reflect(x: np.ndarray, y: np.ndarray, data_range: float | int) -> np.ndarray:
    """`ssim` with the mean over all pixels of the image mirrored at its edge: torchmetrics' form.

    Arguments and result are those of `ssim`.
    """
    return _ssim_map(*_pair(x, y), data_range).mean(axis=(1, 2, 3))


def _ssim_map(x: np.ndarray, y: np.ndarray, data_range: float | int) -> np.ndarray:
    offsets = np.arange(-RADIUS, RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * SIGMA**2))
    window /= window.sum()

    def blur(image):
        for axis in (1, 2):
            image = scipy.ndimage.correlate1d(image, window, axis=axis, mode="mirror")
        return image

    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    return luminance * (2 * cov + c2) / (vx + vy + c2)


def _pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 4:
        raise InputError(f"expected two batches (B, H, W, C) alike; got {x.shape} and {y.shape}.")
    return x, y
