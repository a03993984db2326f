"""Where a token is: fixed tables that are added, and rotations of queries and keys.

Nothing here has a parameter.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.types import Array


class Cells(NamedTuple):
    """Coordinates of the tokens of a grid, row by row.

    Attributes:
      row: (T,) float32.
      column: (T,) float32.
    """

    row: np.ndarray
    column: np.ndarray


def cells(height: int, width: int) -> Cells:
    """The cells of a grid of `height` rows and `width` columns."""
    row, column = np.divmod(np.arange(height * width, dtype=np.float32), np.float32(width))
    return Cells(row, column)


def sincos_2d(where: Cells, dim: int, scale: float = 1.0) -> np.ndarray:
    """Fixed sine-cosine positions (Vaswani et al. 2017, section 3.5) of rows and columns.

    The first half of the channels tells the column and the second the row, each by the sines
    and then the cosines at the frequencies 10000^(-i/n), i < n = dim/4: as in MAE and DiT.
    Computed in float64.

    Args:
      where: the tokens.
      dim: number of channels, divisible by 4.
      scale: coordinates are divided by it.

    Returns:
      (T, dim) float32.
    """
    frequencies = 10_000.0 ** -(np.arange(dim // 4) / (dim / 4))
    column, row = (np.outer(a / scale, frequencies) for a in (where.column, where.row))
    waves = [np.sin(column), np.cos(column), np.sin(row), np.cos(row)]
    return np.concatenate(waves, axis=1).astype(np.float32)


def centred_sincos_2d(where: Cells, dim: int, side: int, scale: float = 1.0) -> np.ndarray:
    """`sincos_2d` of a grid of side x side, cut out around its middle: Esser et al. 2024, B.1.2.

    A network sees the same positions in the middle of images of any size.

    Args:
      where: the cells of a whole grid, from `cells`.
      dim: as in `sincos_2d`, as is scale.
      side: rows and columns of the grid that is cut.

    Returns:
      (T, dim) float32.

    Raises:
      InputError: more than `side` rows or columns.
    """
    sizes = [int(coordinate.max()) + 1 for coordinate in where]
    if max(sizes) > side:
        raise InputError(f"positions are known for {side} x {side} patches; got {sizes}.")
    moved = (a + (side - size) // 2 for a, size in zip(where, sizes, strict=True))
    return sincos_2d(Cells(*moved), dim, scale)


def no_position(where: Cells, dim: int) -> np.ndarray:
    """Zeros (T, dim), for networks that tell positions otherwise."""
    return np.zeros((len(where.row), dim), np.float32)


def rope_2d(x: Array, where: Cells, max_period: float = 10_000.0) -> Array:
    """Turn queries or keys by angles proportional to their position: Su et al. 2021.

    The first half of the channels is turned by the row and the second by the column, each in
    pairs (i, i + D/4) at the frequencies max_period^(-4i/D): a product of a query and a key
    depends on their distance alone.

    Args:
      x: queries or keys (B, T, heads, D), D divisible by 4.
      where: the tokens.
      max_period: period of the slowest turn over 2 pi.

    Returns:
      As x, of its type; computed in at least float32.
    """
    n = x.shape[-1] // 4
    frequencies = max_period ** -(np.arange(n) / n)
    turned = []
    for half, coordinate in zip(jnp.split(x, 2, axis=-1), where, strict=True):
        angles = np.outer(coordinate, frequencies)[None, :, None, :]
        wide = jnp.promote_types(x.dtype, jnp.float32)
        cos, sin = jnp.asarray(np.cos(angles), wide), jnp.asarray(np.sin(angles), wide)
        a, b = jnp.split(half.astype(wide), 2, axis=-1)
        turned += [a * cos - b * sin, a * sin + b * cos]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def no_rotation(x: Array, where: Cells) -> Array:
    """x itself."""
    return x
