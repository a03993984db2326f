"""The Inception graph of 2015 that FID, sFID, KID and the inception score are defined by."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.evaluation.folding import folded_params
from diffjax.evaluation.resize import Weights, tf1_bilinear, torch_bilinear
from diffjax.types import Array, Params

SIZE = 299
CLASSES = 1008


class Outputs(NamedTuple):
    """What metrics take from the graph.

    Attributes:
      pool: (B, 2048), FID's and KID's features: the mean of the last maps.
      logits: (B, 1008), with the bias; the inception score's own leave it out.
      maps: (B, 17, 17, 192), of which sFID takes the first 7 channels: the first branch of the
        block that TensorFlow calls mixed_6.
    """

    pool: Array
    logits: Array
    maps: Array


def tf1_input(images: Array) -> Array:
    """(x - 128) / 128 resized as the original graph does: torch-fidelity, StyleGAN, ADM, EDM."""
    return _resized(images, tf1_bilinear) / 128 - 1


def torch_input(images: Array) -> Array:
    """2 x / 255 - 1 resized as PyTorch does, without antialiasing: pytorch-fid."""
    return _resized(images, torch_bilinear) / 127.5 - 1


def _resized(images: Array, weights: Weights) -> Array:
    rows, columns = (jnp.asarray(weights(n, SIZE), jnp.float32) for n in images.shape[1:3])
    tall = jnp.einsum("ih,bhwc->biwc", rows, images.astype(jnp.float32))
    return jnp.einsum("jw,biwc->bijc", columns, tall)


def _conv(name: str, features: int, kernel: tuple[int, int] = (1, 1), stride: int = 1, **options):
    options = {"padding": "SAME"} | options

    def apply(x):
        layer = nn.Conv(features, kernel, (stride, stride), name=name, **options)
        return nn.relu(layer(x))

    return apply


def _chain(*layers: Callable) -> Callable:
    def apply(x):
        for layer in layers:
            x = layer(x)
        return x

    return apply


_mean = partial(nn.avg_pool, window_shape=(3, 3), padding="SAME", count_include_pad=False)
"""Without the padding: what the original graph does, and what torchvision's does not."""
_max = partial(nn.max_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME")
_halved = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding="VALID")
_down = {"stride": 2, "padding": "VALID"}


class Block35(nn.Module):
    """Mixed_5b to 5d: 35 x 35 pixels."""

    pool: int

    @nn.compact
    def __call__(self, x):
        branches = (
            _conv("branch1x1", 64),
            _chain(_conv("branch5x5_1", 48), _conv("branch5x5_2", 64, (5, 5))),
            _chain(
                _conv("branch3x3dbl_1", 64),
                _conv("branch3x3dbl_2", 96, (3, 3)),
                _conv("branch3x3dbl_3", 96, (3, 3)),
            ),
            _chain(lambda h: _mean(h, strides=(1, 1)), _conv("branch_pool", self.pool)),
        )
        return jnp.concatenate([branch(x) for branch in branches], axis=-1)


class Reduce35(nn.Module):
    """Mixed_6a: 35 x 35 to 17 x 17 pixels."""

    @nn.compact
    def __call__(self, x):
        branches = (
            _conv("branch3x3", 384, (3, 3), **_down),
            _chain(
                _conv("branch3x3dbl_1", 64),
                _conv("branch3x3dbl_2", 96, (3, 3)),
                _conv("branch3x3dbl_3", 96, (3, 3), **_down),
            ),
            _halved,
        )
        return jnp.concatenate([branch(x) for branch in branches], axis=-1)


class Block17(nn.Module):
    """Mixed_6b to 6e: 17 x 17 pixels. Returns the result and its first branch."""

    width: int

    @nn.compact
    def __call__(self, x):
        c, wide, tall = self.width, (1, 7), (7, 1)
        first = _conv("branch1x1", 192)(x)
        branches = (
            _chain(
                _conv("branch7x7_1", c),
                _conv("branch7x7_2", c, wide),
                _conv("branch7x7_3", 192, tall),
            ),
            _chain(
                _conv("branch7x7dbl_1", c),
                _conv("branch7x7dbl_2", c, tall),
                _conv("branch7x7dbl_3", c, wide),
                _conv("branch7x7dbl_4", c, tall),
                _conv("branch7x7dbl_5", 192, wide),
            ),
            _chain(lambda h: _mean(h, strides=(1, 1)), _conv("branch_pool", 192)),
        )
        return jnp.concatenate([first] + [branch(x) for branch in branches], axis=-1), first


class Reduce17(nn.Module):
    """Mixed_7a: 17 x 17 to 8 x 8 pixels."""

    @nn.compact
    def __call__(self, x):
        branches = (
            _chain(_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, (3, 3), **_down)),
            _chain(
                _conv("branch7x7x3_1", 192),
                _conv("branch7x7x3_2", 192, (1, 7)),
                _conv("branch7x7x3_3", 192, (7, 1)),
                _conv("branch7x7x3_4", 192, (3, 3), **_down),
            ),
            _halved,
        )
        return jnp.concatenate([branch(x) for branch in branches], axis=-1)


class Block8(nn.Module):
    """Mixed_7b and 7c: 8 x 8 pixels; the last has a maximum where the others have a mean."""

    pool: Callable

    @nn.compact
    def __call__(self, x):
        narrow = _conv("branch3x3_1", 384)(x)
        double = _chain(_conv("branch3x3dbl_1", 448), _conv("branch3x3dbl_2", 384, (3, 3)))(x)
        parts = [
            _conv("branch1x1", 320)(x),
            _conv("branch3x3_2a", 384, (1, 3))(narrow),
            _conv("branch3x3_2b", 384, (3, 1))(narrow),
            _conv("branch3x3dbl_3a", 384, (1, 3))(double),
            _conv("branch3x3dbl_3b", 384, (3, 1))(double),
            _conv("branch_pool", 192)(self.pool(x)),
        ]
        return jnp.concatenate(parts, axis=-1)


class Inception(nn.Module):
    """Inception v3 as TensorFlow released it in 2015: Szegedy et al. 2016, in FID's form."""

    @nn.compact
    def __call__(self, x) -> Outputs:
        x = _conv("Conv2d_1a_3x3", 32, (3, 3), **_down)(x)
        x = _conv("Conv2d_2a_3x3", 32, (3, 3), padding="VALID")(x)
        x = _halved(_conv("Conv2d_2b_3x3", 64, (3, 3))(x))
        x = _conv("Conv2d_3b_1x1", 80)(x)
        x = _halved(_conv("Conv2d_4a_3x3", 192, (3, 3), padding="VALID")(x))
        for letter, pool in zip("bcd", (32, 64, 64), strict=True):
            x = Block35(pool, name=f"Mixed_5{letter}")(x)
        x = Reduce35(name="Mixed_6a")(x)
        firsts = []
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            x, first = Block17(width, name=f"Mixed_6{letter}")(x)
            firsts.append(first)
        x = Reduce17(name="Mixed_7a")(x)
        x = Block8(partial(_mean, strides=(1, 1)), name="Mixed_7b")(x)
        pool = Block8(_max, name="Mixed_7c")(x).mean(axis=(1, 2))
        return Outputs(pool, nn.Dense(CLASSES, name="fc")(pool), firsts[2])


def inception_params(tensors: dict[str, np.ndarray]) -> Params:
    """Parameters of `Inception` from a file with pytorch-fid's names.

    Args:
      tensors: of pt_inception-2015-12-05-6726825d.pth, or of the same names.

    Returns:
      Parameters, the batch norms folded into the convolutions.

    Raises:
      InputError: a tensor is missing, too many or misshapen.
    """
    layers = [k.removesuffix(".weight") for k in tensors if k.endswith(".conv.weight")]
    norms = {layer: layer.removesuffix("conv") + "bn" for layer in layers}
    return folded_params(tensors, norms, Inception(), jnp.zeros((1, SIZE, SIZE, 3)))
