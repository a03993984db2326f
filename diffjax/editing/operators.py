"""What is measured of an image: linear operators with their adjoints, and differentiable ones.

A method needs three things of a linear A: A x, A' y, and f(A A') y for a function f of the
eigenvalues, from which the pseudo-inverse (f = 1/lambda), every regularised one and every function
of A'A follow. No method needs a singular value decomposition of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.types import Array, PRNGKeyArray, Samples

Eigenvalues = Callable[[Array], Array]
"""A function of eigenvalues of A A', elementwise and finite at 0."""


class LinearOperator(NamedTuple):
    """A linear map of each sample of a batch.

    Attributes:
      apply: x (B, ...) -> A x (B, ...).
      adjoint: y -> A' y, with <A x, y> = <x, A' y>.
      function: (f, y) -> f(A A') y, where f acts on the eigenvalues.
    """

    apply: Callable[[Array], Array]
    adjoint: Callable[[Array], Array]
    function: Callable[[Eigenvalues, Array], Array]


Operator = LinearOperator | Callable[[Samples], Array]
"""What is measured of a batch: linear, or any differentiable function."""


def check_divides(factor: int, shape: Sequence[int]) -> None:
    """Refuse a factor that does not divide the height and width (H, W, ...).

    Raises:
      InputError: with both.
    """
    if factor < 1 or shape[0] % factor or shape[1] % factor:
        raise InputError(
            f"the height and width must be multiples of {factor}; got {shape[0]} x {shape[1]}. "
            "Crop or pad the image, or take a factor that divides them."
        )


def inverse(eigenvalues: Array) -> Array:
    """1/lambda, and 0 where lambda is 0 up to rounding."""
    tiny = eigenvalues < 1e-9
    return jnp.where(tiny, 0, 1 / jnp.where(tiny, 1, eigenvalues))


def pseudo_inverse(operator: LinearOperator, y: Array) -> Array:
    """A+ y = A' (A A')+ y, the shortest x with the least |A x - y|."""
    return operator.adjoint(operator.function(inverse, y))


def on_data(operator: LinearOperator, f: Eigenvalues, x: Samples) -> Samples:
    """f(A'A) x, by f(0) x + A' g(A A') A x with g = (f - f(0))/lambda.

    Args:
      operator: A.
      f: a function of the eigenvalues of A'A, those that A A' has and 0.
      x: (B, ...).

    Returns:
      x's shape.
    """
    null = f(jnp.zeros((), x.dtype))

    def g(eigenvalues):
        return (f(eigenvalues) - null) * inverse(eigenvalues)

    return null * x + operator.adjoint(operator.function(g, operator.apply(x)))


def _scaled_rows(apply, adjoint, square) -> LinearOperator:
    """An operator whose A A' is `square` times the identity."""
    return LinearOperator(apply, adjoint, lambda f, y: f(jnp.asarray(square, y.dtype)) * y)


def from_matrix(matrix: Array | np.ndarray, shape: Sequence[int] | None = None) -> LinearOperator:
    """A matrix on the elements of a sample.

    Args:
      matrix: (m, d).
      shape: of one sample, of d elements; default (d,).

    Returns:
      A linear operator to (B, m).

    Raises:
      InputError: the shape has another number of elements than the matrix has columns.
    """
    matrix = jnp.asarray(matrix)
    shape = matrix.shape[1:] if shape is None else tuple(shape)
    if int(np.prod(shape)) != matrix.shape[1]:
        raise InputError(
            f"a matrix of {matrix.shape[1]} columns measures samples of as many elements; got the "
            f"shape {shape}."
        )
    eigenvalues, vectors = jnp.linalg.eigh(matrix @ matrix.T)
    eigenvalues = jnp.maximum(eigenvalues, 0)
    return LinearOperator(
        lambda x: x.reshape(x.shape[0], -1) @ matrix.T,
        lambda y: (y @ matrix).reshape(y.shape[0], *shape),
        lambda f, y: (y @ vectors * f(eigenvalues)[None]) @ vectors.T,
    )


def inpainting(mask: Array | np.ndarray) -> LinearOperator:
    """The pixels where the mask is 1, others 0 (a projection: A = A' = A A').

    Args:
      mask: of one sample's shape, 1 where a pixel is known.

    Returns:
      A linear operator to measurements of the sample's shape.
    """
    mask = jnp.asarray(mask)
    keep = lambda x: x * mask.astype(x.dtype)[None]  # noqa: E731

    def function(f, y):
        return f(mask.astype(y.dtype))[None] * y

    return LinearOperator(keep, keep, function)


def super_resolution(factor: int) -> LinearOperator:
    """Means of factor x factor blocks of images (B, H, W, C); A A' = 1/factor^2.

    Args:
      factor: at least 1; it divides the height and width.

    Returns:
      A linear operator to (B, H/factor, W/factor, C).

    Raises:
      InputError: when applied to a size that the factor does not divide.
    """

    def apply(x):
        b, h, w, c = x.shape
        check_divides(factor, (h, w))
        return x.reshape(b, h // factor, factor, w // factor, factor, c).mean((2, 4))

    def adjoint(y):
        return jnp.repeat(jnp.repeat(y, factor, 1), factor, 2) / factor**2

    return _scaled_rows(apply, adjoint, 1 / factor**2)


def blur(kernel: Array | np.ndarray, shape: Sequence[int]) -> LinearOperator:
    """Periodic convolution of images (B, H, W, C) with one kernel, diagonal in Fourier's basis.

    Args:
      kernel: (h, w), its middle at (h // 2, w // 2).
      shape: (H, W), at least the kernel's.

    Returns:
      A linear operator between images of one shape.

    Raises:
      InputError: the kernel is larger than the image.
    """
    kernel = jnp.asarray(kernel)
    if kernel.shape[0] > shape[0] or kernel.shape[1] > shape[1]:
        raise InputError(
            f"the blur's kernel must be at most as large as the image; got {kernel.shape} for "
            f"{tuple(shape)}."
        )
    h, w = kernel.shape
    padded = jnp.zeros(tuple(shape), kernel.dtype).at[:h, :w].set(kernel)
    spectrum = jnp.fft.fft2(jnp.roll(padded, (-(h // 2), -(w // 2)), (0, 1)))

    def filtered(x, factor):
        y = jnp.fft.ifft2(jnp.fft.fft2(x, axes=(1, 2)) * factor[None, :, :, None], axes=(1, 2))
        return jnp.real(y).astype(x.dtype)

    return LinearOperator(
        lambda x: filtered(x, spectrum),
        lambda y: filtered(y, jnp.conj(spectrum)),
        lambda f, y: filtered(y, f(jnp.abs(spectrum) ** 2)),
    )


def gaussian_kernel(size: int, std: float) -> Array:
    """A Gaussian blur's kernel (size, size), of sum 1; std in pixels."""
    line = np.exp(-0.5 * ((np.arange(size) - size // 2) / std) ** 2)
    kernel = np.outer(line, line)
    return jnp.asarray(kernel / kernel.sum())


def colourisation(channels: int = 3) -> LinearOperator:
    """The mean over channels of images (B, H, W, C); A A' = 1/C. To grey of one channel."""

    def adjoint(y):
        return jnp.repeat(y, channels, -1) / channels

    return _scaled_rows(lambda x: x.mean(-1, keepdims=True), adjoint, 1 / channels)


def compressed_sensing(key: PRNGKeyArray, shape: Sequence[int], m: int) -> LinearOperator:
    """m random orthonormal combinations of all elements; A A' = 1.

    Args:
      key: consumed whole.
      shape: of one sample.
      m: number of measurements, at most the number of elements.

    Returns:
      A linear operator to (B, m).

    Raises:
      InputError: m is more than the elements.
    """
    d = int(np.prod(shape))
    if not 1 <= m <= d:
        raise InputError(
            f"compressed sensing of {d} elements takes 1 to {d} measurements; got {m}."
        )
    rows = jnp.linalg.qr(jax.random.normal(key, (d, m)))[0].T
    return _scaled_rows(
        lambda x: x.reshape(x.shape[0], -1) @ rows.T.astype(x.dtype),
        lambda y: (y @ rows.astype(y.dtype)).reshape(y.shape[0], *shape),
        1.0,
    )


def phase_retrieval(oversampling: int = 2) -> Callable[[Samples], Array]:
    """|F x| of the image padded with zeros: Chung et al. 2023 (DPS), section 4.

    Args:
      oversampling: size of the padded image over the image's.

    Returns:
      x (B, H, W, C) -> (B, oversampling H, oversampling W, C), differentiable, not linear.
    """

    def apply(x):
        _, h, w, _ = x.shape
        more = ((0, 0), (0, (oversampling - 1) * h), (0, (oversampling - 1) * w), (0, 0))
        spectrum = jnp.fft.fft2(jnp.pad(x, more), axes=(1, 2), norm="ortho")
        return jnp.sqrt(jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2 + 1e-12)

    return apply


_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    float,
)  # ITU-T T.81, Table K.1


def jpeg(quality: int) -> Callable[[Samples], Array]:
    """The quantised 8x8 cosine transform of JPEG (ITU-T T.81) of each channel, as it is decoded.

    Rounding has the gradient of the identity. Colours are not converted, and every channel has the
    luminance table.

    Args:
      quality: 1 to 100, of the table's usual scaling.

    Returns:
      x (B, H, W, C) in [-1, 1], sizes multiples of 8 -> the decoded image.

    Raises:
      InputError: the quality is outside 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise InputError(f"JPEG's quality must be 1 to 100; got {quality}.")
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = np.clip(np.floor((_LUMINANCE * scale + 50) / 100), 1, 255) / 127.5
    k = np.arange(8)
    cosines = np.cos((2 * k[None] + 1) * k[:, None] * np.pi / 16) / 2
    cosines[0] /= np.sqrt(2)

    def apply(x):
        b, h, w, c = x.shape
        basis = jnp.asarray(cosines, x.dtype)
        blocks = x.reshape(b, h // 8, 8, w // 8, 8, c)
        spectrum = jnp.einsum("ki,bxiyjc,lj->bxkylc", basis, blocks, basis)
        steps = jnp.asarray(table, x.dtype)[None, None, :, None, :, None]
        levels = spectrum / steps
        rounded = levels + jax.lax.stop_gradient(jnp.round(levels) - levels)
        return jnp.einsum("ki,bxkylc,lj->bxiyjc", basis, rounded * steps, basis).reshape(x.shape)

    return apply
