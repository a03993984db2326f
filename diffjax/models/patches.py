"""Images as sequences of patches, and the embeddings of time and label."""

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.checks import check_divides, check_images
from diffjax.models.layers import Dtype, sinusoidal_embedding
from diffjax.models.transformer import dense, small
from diffjax.types import Array, Cond


def patchify(x: Array, size: int) -> Array:
    """Cut images into patches, row by row.

    Args:
      x: (B, H, W, C).
      size: height and width of a patch.

    Returns:
      (B, H W / size^2, size^2 C); within a patch rows, columns, channels.

    Raises:
      InputError: the size divides not both of H and W.
    """
    b, height, width, c = x.shape
    if height % size or width % size:
        raise InputError(
            f"patches of {size}x{size} do not tile an image of {height}x{width}; give an image "
            f"of multiples of {size}, or another patch_size."
        )
    x = x.reshape(b, height // size, size, width // size, size, c)
    return x.swapaxes(2, 3).reshape(b, -1, size * size * c)


def unpatchify(x: Array, height: int, width: int, size: int) -> Array:
    """Images (B, height, width, C) of patches: the inverse of `patchify`."""
    x = x.reshape(x.shape[0], height // size, width // size, size, size, -1)
    return x.swapaxes(2, 3).reshape(x.shape[0], height, width, -1)


def check_patches(module: nn.Module, x: Array, t: Array) -> None:
    """Refuse what a transformer of patches cannot take. To be called first in its `__call__`.

    Args:
      module: with `patch_size`, `width` and `heads`, and `patches` as its first layer.
      x: images (B, H, W, C).
      t: times (B,).

    Raises:
      InputError: images that `check_images` refuses, or heads that do not divide the width.
    """
    size = module.patch_size
    inputs = lambda channels: size**2 * channels  # noqa: E731
    check_images(module, x, t, layer="patches", multiple=size, inputs=inputs)
    check_divides(type(module).__name__, module.heads, module.width, "heads must divide its width")


class TimeEmbedding(nn.Module):
    """256 sines and cosines of t through two dense layers.

    Attributes:
      width: of the embedding.
      shift: of the frequencies, see `sinusoidal_embedding`.
      dtype: type of the computation.
    """

    width: int
    shift: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """t (B,) in steps to (B, width)."""
        h = sinusoidal_embedding(t, 256, shift=self.shift)
        h = nn.silu(dense(self.width, self.dtype, kernel_init=small, name="layer_in")(h))
        return dense(self.width, self.dtype, kernel_init=small, name="layer_out")(h)


class LabelEmbedding(nn.Module):
    """A table of class labels, the null label last.

    Attributes:
      num_classes: number of labels.
      width: of the embedding.
      null_label: whether there is a row for the null label, `num_classes`.
      dtype: type of the computation.
    """

    num_classes: int
    width: int
    null_label: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, cond: Cond) -> Array:
        """The embedding (B, width) of cond["label"] (B,)."""
        if not cond or "label" not in cond:
            raise InputError(
                f'expected cond["label"] (B,), {self.num_classes} being the null label; got none.'
            )
        rows = self.num_classes + self.null_label
        table = nn.Embed(rows, self.width, dtype=self.dtype, embedding_init=small, name="table")
        return table(cond["label"])


class VectorEmbedding(nn.Module):
    """A vector, such as a pooled text, through two dense layers.

    Attributes:
      width: of the embedding.
      dtype: type of the computation.
    """

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, cond: Cond) -> Array:
        """The embedding (B, width) of cond["vector"] (B, V)."""
        if not cond or "vector" not in cond:
            raise InputError('this network needs cond["vector"] (B, V); got none.')
        h = nn.silu(dense(self.width, self.dtype, name="layer_in")(cond["vector"]))
        return dense(self.width, self.dtype, name="layer_out")(h)


class Embedding(nn.Module):
    """The sum of the embeddings of time and label.

    Attributes:
      width: of the embedding.
      num_classes: number of labels; 0 is without.
      null_label: as in `LabelEmbedding`.
      shift: as in `TimeEmbedding`.
      dtype: type of the computation.
    """

    width: int
    num_classes: int
    null_label: bool = True
    shift: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, t: Array, cond: Cond) -> Array:
        """t (B,) in steps and cond["label"] (B,) to (B, width)."""
        time = TimeEmbedding(self.width, self.shift, self.dtype, name="time")(t)
        if not self.num_classes:
            return time
        table = LabelEmbedding(
            self.num_classes, self.width, self.null_label, self.dtype, name="label"
        )
        return time + table(cond)
