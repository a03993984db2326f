"""The U-Net of DDPM (Ho et al. 2020, appendix B), with the residual block of ADM.

Images are NHWC. Parameters are float32; `dtype` is the type of the computation, and
norms, softmax and output stay float32.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.layers import Dtype, sinusoidal_embedding
from diffjax.types import Array, Cond


class Norm(nn.Module):
    """Group normalisation in float32 (Wu & He 2018), cast back to the compute type.

    32 groups, as the papers have it, and fewer where a group would have under 4 channels.
    """

    @nn.compact
    def __call__(self, x):
        groups = math.gcd(32, max(x.shape[-1] // 4, 1))
        normal = nn.GroupNorm(num_groups=groups, epsilon=1e-5, dtype=jnp.float32)
        return normal(x).astype(x.dtype)


class ResidualBlock(nn.Module):
    """norm, SiLU, conv; scale and shift by the embedding; norm, SiLU, dropout, conv; plus input.

    Scale-shift conditioning and the zero-initialised last convolution are those of
    Dhariwal & Nichol 2021 (ADM), section 3.
    """

    features: int
    dropout: float
    dtype: Dtype

    @nn.compact
    def __call__(self, x, embedding, train):
        conv = lambda **kw: nn.Conv(self.features, (3, 3), dtype=self.dtype, **kw)  # noqa: E731
        h = conv(name="conv_in")(nn.silu(Norm(name="norm_in")(x)))
        modulation = nn.Dense(2 * self.features, dtype=self.dtype, name="modulation")(embedding)
        scale, shift = jnp.split(modulation[:, None, None, :], 2, axis=-1)
        h = nn.silu(Norm(name="norm_out")(h) * (1 + scale) + shift)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = conv(kernel_init=nn.initializers.zeros, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="skip")(x)
        return x + h


class SelfAttention(nn.Module):
    """Multi-head self-attention over the pixels, residual, zero-initialised at the end."""

    head_channels: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        b, height, width, c = x.shape
        heads = max(c // self.head_channels, 1)
        qkv = nn.Dense(3 * c, dtype=self.dtype, name="qkv")(Norm(name="norm")(x))
        q, k, v = jnp.split(qkv.reshape(b, height * width, 3 * heads, c // heads), 3, axis=2)
        h = jax.nn.dot_product_attention(q, k, v).reshape(b, height, width, c)
        project = nn.Dense(
            c, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="projection"
        )
        return x + project(h)


class UNet(nn.Module):
    """A U-Net over images, conditioned on time and optionally on a class label.

    Attributes:
      channels: width of the first level.
      multipliers: width of each level over `channels`; each level halves the resolution.
      blocks: residual blocks per level on the way down (one more on the way up).
      attention_levels: levels (0 is the full resolution) with self-attention.
      num_classes: size of the label set; the label `num_classes` is the null label.
        0 is unconditional.
      out_channels: None for as many as the input; twice as many for a learned variance.
      head_channels: channels per attention head.
      dropout: rate inside residual blocks.
      dtype: type of the computation, float32 or bfloat16.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (1,)
    num_classes: int = 0
    out_channels: int | None = None
    head_channels: int = 64
    dropout: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, H, W, C), t (B,) in steps, cond {"label": (B,)} or None -> (B, H, W, out)."""
        out_channels = self.out_channels or x.shape[-1]
        embedding = self.embed(t, cond)

        def level_block(h, level, name):
            features = self.channels * self.multipliers[level]
            h = ResidualBlock(features, self.dropout, self.dtype, name=name)(h, embedding, train)
            if level in self.attention_levels:
                h = SelfAttention(self.head_channels, self.dtype, name=f"{name}_attention")(h)
            return h

        last = len(self.multipliers) - 1
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_in")(x)
        skips = [h]
        for level in range(last + 1):
            for block in range(self.blocks):
                h = level_block(h, level, f"down_{level}_{block}")
                skips.append(h)
            if level < last:
                h = nn.Conv(
                    h.shape[-1], (3, 3), (2, 2), dtype=self.dtype, name=f"downsample_{level}"
                )(h)
                skips.append(h)

        middle = lambda name: ResidualBlock(h.shape[-1], self.dropout, self.dtype, name=name)  # noqa: E731
        h = middle("middle_0")(h, embedding, train)
        if self.attention_levels:
            h = SelfAttention(self.head_channels, self.dtype, name="middle_attention")(h)
        h = middle("middle_1")(h, embedding, train)

        for level in reversed(range(last + 1)):
            for block in range(self.blocks + 1):
                h = level_block(
                    jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{block}"
                )
            if level > 0:
                b, height, width, c = h.shape
                h = jax.image.resize(h, (b, 2 * height, 2 * width, c), "nearest")
                h = nn.Conv(c, (3, 3), dtype=self.dtype, name=f"upsample_{level}")(h)

        h = nn.silu(Norm(name="norm_out")(h))
        out = nn.Conv(
            out_channels,
            (3, 3),
            kernel_init=nn.initializers.zeros,
            dtype=jnp.float32,
            name="conv_out",
        )
        return out(h)

    def embed(self, t: Array, cond: Cond) -> Array:
        """Embedding of time plus label, (B, 4 channels), after its SiLU."""
        width = 4 * self.channels
        h = sinusoidal_embedding(t, self.channels)
        h = nn.silu(nn.Dense(width, dtype=self.dtype, name="time_in")(h))
        h = nn.Dense(width, dtype=self.dtype, name="time_out")(h)
        if self.num_classes:
            table = nn.Embed(self.num_classes + 1, width, dtype=self.dtype, name="label")
            h = h + table(cond["label"])
        return nn.silu(h)
