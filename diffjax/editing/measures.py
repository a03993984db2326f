"""The operators of `python -m diffjax.edit`: of the shape of one picture, and of flags."""

import jax
import numpy as np

from diffjax.editing import operators
from diffjax.editing.operators import LinearOperator, Operator


def super_resolution(shape: tuple[int, ...], factor: int = 4) -> LinearOperator:
    """Means of factor x factor blocks: the picture is to be enlarged.

    Args:
      shape: (H, W, C) of one picture.
      factor: it divides the height and width.
    """
    operators.check_divides(factor, shape)
    return operators.super_resolution(factor)


def blur(shape: tuple[int, ...], size: int = 5, std: float = 1.0) -> LinearOperator:
    """A Gaussian blur, periodic at the border.

    Args:
      shape: (H, W, C) of one picture.
      size: of the kernel, in pixels.
      std: of the kernel, in pixels.
    """
    return operators.blur(operators.gaussian_kernel(size, std), shape[:2])


def colourisation(shape: tuple[int, ...]) -> LinearOperator:
    """The mean of the channels: a grey picture is to be coloured.

    Args:
      shape: (H, W, C) of one picture.
    """
    return operators.colourisation(shape[-1])


def compressed_sensing(
    shape: tuple[int, ...], share: float = 0.25, operator_seed: int = 0
) -> LinearOperator:
    """Random orthonormal combinations of all pixels.

    Args:
      shape: (H, W, C) of one picture.
      share: measurements over pixels, in (0, 1].
      operator_seed: of the combinations.
    """
    number = round(share * float(np.prod(shape)))
    return operators.compressed_sensing(jax.random.key(operator_seed), shape, number)


def phase_retrieval(shape: tuple[int, ...], oversampling: int = 2) -> Operator:
    """The magnitude of the Fourier transform of the padded picture; not linear.

    Args:
      shape: (H, W, C) of one picture.
      oversampling: size of the padded picture over the picture's.
    """
    return operators.phase_retrieval(oversampling)


def jpeg(shape: tuple[int, ...], quality: int = 10) -> Operator:
    """JPEG's compression, which is to be undone; not linear.

    Args:
      shape: (H, W, C) of one picture, of sides that are multiples of 8.
      quality: 1 to 100.
    """
    operators.check_divides(8, shape)
    return operators.jpeg(quality)


def inpainting(shape: tuple[int, ...], mask: np.ndarray) -> LinearOperator:
    """The pixels where a mask is 1: what --mask is to a method of measurements.

    Args:
      shape: (H, W, C) of one picture.
      mask: (H, W, 1).
    """
    return operators.inpainting(np.broadcast_to(mask, shape))
