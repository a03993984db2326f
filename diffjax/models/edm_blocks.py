"""The parts of EDM's networks: FIR resampling, initial weights and the residual block."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.models.layers import Dtype, GroupNorm, attention
from diffjax.models.winograd import Convolve, convolve
from diffjax.types import Array, Cond

Taps = tuple[float | int, ...]
"""A FIR filter of even length along one axis; it is scaled to sum to 1."""


def downsample(x: Array, taps: Taps = (1, 1), pad: int | None = None) -> Array:
    """Filter and halve height and width: y_i = sum_k f_k x_(2i + k - pad) along both axes.

    Args:
      x: (B, H, W, C).
      taps: f; (1, 1) is the mean of 2x2 pixels.
      pad: zeros beyond each edge; None keeps H/2 and W/2.

    Returns:
      (B, H/2, W/2, C).
    """
    pad = len(taps) // 2 - 1 if pad is None else pad
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for axis in (1, 2):
        reach = x.shape[axis] - len(taps) + 1
        every_other = lambda k: jax.lax.slice_in_dim(x, k, k + reach, 2, axis)  # noqa: B023, E731
        x = sum(f / sum(taps) * every_other(k) for k, f in enumerate(taps))
    return x


def upsample(x: Array, taps: Taps = (1, 1)) -> Array:
    """Double height and width: 4 times the transpose of `downsample`.

    Args:
      x: (B, H, W, C).
      taps: of the filter; (1, 1) repeats each pixel.

    Returns:
      (B, 2H, 2W, C).
    """
    b, height, width, c = x.shape
    large = jax.ShapeDtypeStruct((b, 2 * height, 2 * width, c), x.dtype)
    (y,) = jax.linear_transpose(lambda y: downsample(y, taps), large)(x)
    return 4 * y


def one_hot_label(cond: Cond, classes: int, batch: int) -> Array:
    """1 at the sample's class, 0 elsewhere.

    Args:
      cond: its `label` (B,); the null label, `classes`, is all 0, as is no label at all.
      classes: number of classes.
      batch: B.

    Returns:
      (B, classes) float32.
    """
    label = (cond or {}).get("label", jnp.full(batch, classes))
    return jax.nn.one_hot(label, classes)


class Init(NamedTuple):
    """How a layer begins.

    Attributes:
      weight: initialiser of its weights.
      bias: its biases are uniform within +- bias/sqrt(fan in).
    """

    weight: Any
    bias: float = 0.0


class Inits(NamedTuple):
    """How a network begins: most layers, the last of each branch, and query-key-value."""

    main: Init
    last: Init
    qkv: Init


def linear(
    x: Array,
    features: int,
    name: str,
    init: Init,
    dtype: Dtype = None,
    kernel: tuple[int, ...] = (),
    padding: Any = "SAME",
    use_bias: bool = True,
    convolve: Convolve = convolve,
) -> Array:
    """A dense layer over the last axis, or a convolution where there is a kernel.

    Args:
      x: (..., C).
      features: of the output.
      name: of the layer within the module that calls.
      init: how it begins.
      dtype: type of the computation; None is that of x and the parameters.
      kernel: () or (h, w).
      padding: of the convolution.
      use_bias: whether there is one.
      convolve: how a convolution is computed.
    """
    width = init.bias / np.sqrt(np.prod((*kernel, x.shape[-1])))

    def bias(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -width, width)

    options = {"dtype": dtype, "kernel_init": init.weight, "use_bias": use_bias, "name": name}
    options["bias_init"] = bias if width else nn.initializers.zeros
    if kernel:
        options |= {"padding": padding, "conv_general_dilated": convolve}
        return nn.Conv(features, kernel, **options)(x)
    return nn.Dense(features, **options)(x)


def group_norm(x: Array, name: str, epsilon: float) -> Array:
    """Group normalisation by 32 groups, or fewer so that none has under 4 channels."""
    return GroupNorm(min(32, x.shape[-1] // 4), epsilon, name=name)(x)


class EDMBlock(nn.Module):
    """The residual block of DDPM++, NCSN++ and ADM, with self-attention after it.

    Karras et al. 2022, appendix F.2; every residual sum is multiplied by `skip_scale`.

    Attributes:
      features: channels of the output.
      resample: of the block's input, None where the resolution stays.
      heads: of attention; 0 is none.
      dropout: rate before the last convolution.
      skip_scale: sqrt(1/2) keeps the variance of a sum of two.
      epsilon: of the norms.
      adaptive: the embedding scales and shifts after the second norm, instead of being added
        before it.
      project_resampled: whether a resampled skip has a dense layer where the width stays.
      inits: how the layers begin.
      dtype: type of the computation.
      convolve: how convolutions are computed; by default in fewer products on CPUs.
    """

    features: int
    resample: Callable[[Array], Array] | None
    heads: int
    dropout: float
    skip_scale: float
    epsilon: float
    adaptive: bool
    project_resampled: bool
    inits: Inits
    dtype: Dtype
    convolve: Convolve = convolve

    @nn.compact
    def __call__(self, x: Array, embedding: Array, train: bool = False) -> Array:
        """x (B, H, W, C), embedding (B, D) -> (B, H', W', features)."""
        resample = self.resample or (lambda x: x)
        h = resample(nn.silu(group_norm(x, "norm0", self.epsilon)))
        options = {"dtype": self.dtype, "kernel": (3, 3), "convolve": self.convolve}
        h = linear(h, self.features, "conv0", self.inits.main, **options)
        h = nn.silu(self.modulate(h, embedding))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = linear(h, self.features, "conv1", self.inits.last, **options)
        skip = resample(x)
        if x.shape[-1] != self.features or (self.resample and self.project_resampled):
            skip = linear(skip, self.features, "skip", self.inits.main, self.dtype)
        h = self.skip_scale * (h + skip)
        return self.skip_scale * (h + self.attend(h)) if self.heads else h

    def modulate(self, h: Array, embedding: Array) -> Array:
        """The second norm, scaled and shifted by the embedding."""
        width = self.features * (2 if self.adaptive else 1)
        affine = linear(embedding, width, "affine", self.inits.main)
        affine = affine[:, None, None, :].astype(h.dtype)
        if not self.adaptive:
            return group_norm(h + affine, "norm1", self.epsilon)
        scale, shift = jnp.split(affine, 2, axis=-1)
        return group_norm(h, "norm1", self.epsilon) * (1 + scale) + shift

    def attend(self, x: Array) -> Array:
        """Self-attention over the pixels, without its residual sum."""
        b, height, width, c = x.shape
        h = group_norm(x, "norm2", self.epsilon).reshape(b, height * width, c)
        qkv = linear(h, 3 * c, "qkv", self.inits.qkv, self.dtype)
        qkv = qkv.reshape(b, height * width, 3, self.heads, c // self.heads)
        h = attention(*(qkv[:, :, i] for i in range(3)))
        return linear(h, c, "proj", self.inits.last, self.dtype).reshape(x.shape)
