"""The patch discriminator of adversarially trained autoencoders."""

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.layers import Dtype, GroupNorm, full
from diffjax.types import Array


class PatchDiscriminator(nn.Module):
    """A logit per patch of an image: Isola et al. 2017.

    Strided 4x4 convolutions that double the width up to eight times. Their batch norm is a
    group norm here, so that a logit depends on its own image alone.

    Attributes:
      channels: width of the first layer; 8 divides it.
      layers: strided ones; with 3 a logit sees 70 x 70 pixels.
      groups: of the norms.
      dtype: type of the computation, float32 or bfloat16.
    """

    channels: int = 64
    layers: int = 3
    groups: int = 8
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C), at least 2^(layers + 1) pixels a side -> logits (B, h, w)."""

        def conv(h, features, stride, name, dtype=self.dtype):
            layer = nn.Conv(features, (4, 4), (stride, stride), padding=1, dtype=dtype, name=name)
            return layer(h)

        h = nn.leaky_relu(conv(x, self.channels, 2, "conv_0"), 0.2)
        for i in range(1, self.layers + 1):
            h = conv(h, self.channels * min(2**i, 8), 2 if i < self.layers else 1, f"conv_{i}")
            h = nn.leaky_relu(GroupNorm(self.groups, name=f"norm_{i}")(h), 0.2)
        out = conv(h, 1, 1, "conv_out", full(self.dtype))
        return out[..., 0]
