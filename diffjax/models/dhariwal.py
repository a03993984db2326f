"""EDM's network of ImageNet-64: ADM (Dhariwal & Nichol 2021) as Karras et al. 2022 train it.

It differs from ADM's own in names, in where the label enters and in how weights begin. Images
are NHWC; parameters are float32; `dtype` is the type of the computation, and norms, softmax,
embedding and output stay float32.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.backbone import UNetBackbone
from diffjax.models.checks import check_images
from diffjax.models.edm_blocks import (
    EDMBlock,
    Init,
    Inits,
    downsample,
    group_norm,
    linear,
    one_hot_label,
    upsample,
)
from diffjax.models.edm_stages import down_and_up
from diffjax.models.layers import Dtype, sinusoidal_embedding
from diffjax.models.winograd import Convolve, convolve
from diffjax.types import Array, Cond

KAIMING = Init(nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"), bias=1.0)
ZERO = Init(nn.initializers.zeros)
LABEL = Init(nn.initializers.normal(1.0))
INITS = Inits(main=KAIMING, last=ZERO, qkv=KAIMING)
EPSILON = 1e-5


class DhariwalUNet(nn.Module):
    """ADM as EDM trains it; t is c_noise = log(sigma)/4.

    Attributes:
      channels: width that multiplies every other.
      multipliers: width of each level over `channels`; each level halves the resolution.
      blocks: residual blocks per level on the way down (one more on the way up).
      attention_levels: levels (0 is the full resolution) with self-attention.
      num_classes: 0 is unconditional; the label `num_classes` is the null label.
      augment_dim: width of cond["augment"], what was done to the image; 0 is none.
      out_channels: None for as many as the input.
      embedding_multiplier: width of the embedding over `channels`.
      head_channels: channels per attention head.
      dropout: rate inside residual blocks.
      dtype: type of the computation, float32 or bfloat16.
      convolve: how the blocks' convolutions are computed; by default in fewer products on CPUs.
      remat: compute each block again in the backward pass instead of keeping its inside.
      scan_blocks: compile one block for each run of equal ones; see `stack_blocks`.
    """

    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention_levels: tuple[int, ...] = (1, 2, 3)
    num_classes: int = 0
    augment_dim: int = 0
    out_channels: int | None = None
    embedding_multiplier: int = 4
    head_channels: int = 64
    dropout: float = 0.1
    dtype: Dtype = jnp.float32
    convolve: Convolve = convolve
    remat: bool = False
    scan_blocks: bool = False

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, H, W, C), t (B,), cond {"label": (B,), "augment": (B, D)} -> (B, H, W, out)."""
        check_images(self, x, t, layer="enc_0_conv", multiple=2 ** (len(self.multipliers) - 1))
        out_channels = self.out_channels or x.shape[-1]
        embedding = self.embed(t, cond or {})
        call = lambda block, h: block(h, embedding, train)  # noqa: E731
        backbone = UNetBackbone(call, remat=self.remat, scan=self.scan_blocks)
        widths = [self.channels * multiplier for multiplier in self.multipliers]

        h = linear(x, widths[0], "enc_0_conv", INITS.main, self.dtype, (3, 3))
        levels = (widths, self.blocks, self.attention_levels)
        h = down_and_up(backbone, self.make, h, *levels, (downsample, upsample))
        h = nn.silu(group_norm(h, "out_norm", EPSILON))
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return linear(h, out_channels, "out_conv", INITS.last, dtype, (3, 3))

    def embed(self, t: Array, cond: dict) -> Array:
        """Embedding of noise level, augmentation and label, (B, D), after its SiLU."""
        width = self.channels * self.embedding_multiplier
        h = sinusoidal_embedding(t, self.channels)
        if self.augment_dim:
            augment = cond.get("augment", jnp.zeros((t.shape[0], self.augment_dim)))
            h = h + linear(augment, self.channels, "map_augment", ZERO, use_bias=False)
        h = nn.silu(linear(h, width, "map_layer0", INITS.main))
        h = linear(h, width, "map_layer1", INITS.main)
        if self.num_classes:
            label = one_hot_label(cond, self.num_classes, t.shape[0])
            h = h + linear(label, width, "map_label", LABEL, use_bias=False)
        return nn.silu(h)

    def make(self, features: int, attends: bool, resample: Any, name: str) -> EDMBlock:
        """A block of this network."""
        return EDMBlock(
            features=features,
            resample=resample,
            heads=features // self.head_channels if attends else 0,
            dropout=self.dropout,
            skip_scale=1.0,
            epsilon=EPSILON,
            adaptive=True,
            project_resampled=False,
            inits=INITS,
            dtype=self.dtype,
            convolve=self.convolve,
            name=name,
        )


def adm_imagenet64(**options) -> DhariwalUNet:
    """EDM's ADM of class-conditional ImageNet-64: 295,899,267 parameters.

    Args:
      **options: over its attributes.
    """
    return DhariwalUNet(**{"num_classes": 1000, **options})
