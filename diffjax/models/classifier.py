"""A classifier of noisy images, for classifier guidance: the way down of ADM's U-Net."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.backbone import UNetBackbone
from diffjax.models.checks import check_images
from diffjax.models.layers import Dtype, attention, full
from diffjax.models.resnet import Style
from diffjax.models.unet import Level, stages_down, stages_middle
from diffjax.models.unet_attention import Attend, PixelAttention, heads_of
from diffjax.models.unet_conditions import Embedding
from diffjax.models.unet_presets import RESIDUAL_BLOCKS, levels
from diffjax.types import Array, Cond


class MeanPool(nn.Module):
    """Norm, SiLU, the mean of the pixels, and a linear layer.

    Attributes:
      style: shared by the network.
      outputs: number of logits.
    """

    style: Style
    outputs: int

    @nn.compact
    def __call__(self, x):
        h = nn.silu(self.style.norm("norm")(x)).mean(axis=(1, 2))
        zeros = nn.initializers.zeros
        return nn.Dense(self.outputs, dtype=x.dtype, kernel_init=zeros, name="projection")(h)


class AttentionPool(nn.Module):
    """Norm, SiLU, and what the mean pixel sees when it attends to all: Radford et al. 2021.

    Attributes:
      style: shared by the network.
      outputs: number of logits.
      head_channels: channels per attention head; must divide the channels.
    """

    style: Style
    outputs: int
    head_channels: int = 64

    @nn.compact
    def __call__(self, x):
        b, height, width, c = x.shape
        h = nn.silu(self.style.norm("norm")(x)).reshape(b, height * width, c)
        h = jnp.concatenate([h.mean(axis=1, keepdims=True), h], axis=1)
        normal = nn.initializers.normal(c**-0.5)
        h = h + self.param("positions", normal, h.shape[1:]).astype(h.dtype)[None]
        q, k, v = jnp.split(nn.Dense(3 * c, dtype=x.dtype, name="qkv")(h), 3, axis=-1)
        q = q[:, :1]  # only the mean pixel's result is used
        h = attention(*(heads_of(a, c // self.head_channels) for a in (q, k, v)))
        return nn.Dense(self.outputs, dtype=x.dtype, name="projection")(h[:, 0])


class Classifier(nn.Module):
    """Logits of p(y | x_t) (Dhariwal & Nichol 2021, section 4): half a U-Net and a pooling.

    Attributes:
      channels: of the time's sinusoid.
      down: levels from the full resolution on.
      middle: as in `UNet`.
      pool: style -> module from the last activations to the logits.
      style: shared by all blocks.
      remat, scan_blocks: as in `UNet`.
    """

    channels: int
    down: tuple[Level, ...]
    middle: tuple[Attend | None, ...]
    pool: Callable[..., Any]
    style: Style = Style()
    remat: bool = False
    scan_blocks: bool = False

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, H, W, C), t (B,) in steps -> logits (B, classes), float32."""
        check_images(self, x, t, layer="conv_in", multiple=2 ** (len(self.down) - 1))
        style, c = self.style, self.channels
        embedding = Embedding(c, 4 * c, dtype=style.dtype, name="embedding")(t, cond)
        call = lambda layer, h: layer(h, embedding, None, train)  # noqa: E731
        backbone = UNetBackbone(call, remat=self.remat, scan=self.scan_blocks)
        h = style.conv(self.down[0].channels, "conv_in")(x)
        h, _ = backbone.down(stages_down(self.down, style, embedding, train), h)
        h = backbone.through(stages_middle(self.middle, style, h.shape[-1]), h)
        return self.pool(style, name="pool")(h.astype(full(style.dtype)))


def adm_classifier(
    classes: int = 1000,
    channels: int = 128,
    multipliers: tuple[int | float, ...] = (1, 2, 3, 4),
    blocks: int = 4,
    attention_levels: tuple[int, ...] = (1, 2, 3),
    head_channels: int = 64,
    dropout: float = 0.0,
    dtype: Dtype = jnp.float32,
) -> Classifier:
    """The classifier of Dhariwal & Nichol 2021; the default is that of ImageNet 64.

    Args:
      classes: number of logits.
      channels: width of the first level.
      multipliers: width of each level over `channels`.
      blocks: residual blocks per level.
      attention_levels: levels (0 is the full resolution) with self-attention.
      head_channels: channels per attention head.
      dropout: rate inside residual blocks.
      dtype: of the computation, float32 or bfloat16.
    """
    widths = [round(m * channels) for m in multipliers]
    attend = partial(PixelAttention, head_channels=head_channels)
    attends = [attend if i in attention_levels else None for i in range(len(widths))]
    return Classifier(
        channels,
        levels(widths, blocks, attends, RESIDUAL_BLOCKS[0]),
        middle=(attend,),
        pool=partial(AttentionPool, outputs=classes, head_channels=head_channels),
        style=Style(None, dropout=dropout, dtype=dtype),
    )
