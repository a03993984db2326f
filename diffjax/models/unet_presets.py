"""U-Nets by the names of their papers: `ddpm_unet`, `adm_unet`, `latent_unet`, and the published.

Each function returns a `UNet`; any of its attributes can be changed with `.clone(...)`.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp

from diffjax.models.layers import Dtype
from diffjax.models.resnet import (
    ConvDown,
    ConvUp,
    Resample,
    Style,
    residual_down,
    residual_up,
)
from diffjax.models.unet import Level, UNet
from diffjax.models.unet_attention import Attend, PixelAttention, SpatialTransformer

CONVOLUTIONS = (ConvDown, ConvUp)
RESIDUAL_BLOCKS = (residual_down, residual_up)


def levels(
    widths: Sequence[int], blocks: int, attends: Sequence[Attend | None], resample: Resample
) -> tuple[Level, ...]:
    """Levels of one way, whose last of the given order does not resample."""
    last = len(widths) - 1
    return tuple(
        Level(width, blocks, attend, resample if i < last else None)
        for i, (width, attend) in enumerate(zip(widths, attends, strict=True))
    )


def both_ways(
    widths: Sequence[int],
    blocks: int,
    attends: Sequence[Attend | None],
    resample: tuple[Resample, Resample],
    up_attends: Sequence[Attend | None] | None = None,
) -> dict[str, tuple[Level, ...]]:
    """`down` and `up` of a U-Net.

    Args:
      widths: channels of each level, the full resolution first.
      blocks: residual blocks per level on the way down; one more on the way up.
      attends: what attends at each level.
      resample: the way down's and the way up's.
      up_attends: what attends on the way up; None for the same.
    """
    up = up_attends or attends
    rising = levels(widths[::-1], blocks + 1, up[::-1], resample[1])[::-1]
    return {"down": levels(widths, blocks, attends, resample[0]), "up": rising}


def ddpm_unet(
    channels: int = 128,
    multipliers: Sequence[int | float] = (1, 2, 2, 2),
    blocks: int = 2,
    attention_levels: Sequence[int] = (1,),
    dropout: float = 0.0,
    out_channels: int | None = None,
    dtype: Dtype = jnp.float32,
) -> UNet:
    """The U-Net of Ho et al. 2020, appendix B: the time is added, one head attends.

    Args:
      channels: width of the first level.
      multipliers: width of each level over `channels`.
      blocks: residual blocks per level.
      attention_levels: levels (0 is the full resolution) with self-attention.
      dropout: rate inside residual blocks.
      out_channels: None for as many as the input.
      dtype: of the computation, float32 or bfloat16.
    """
    widths = [round(m * channels) for m in multipliers]
    attend = partial(PixelAttention, heads=1)
    attends = [attend if i in attention_levels else None for i in range(len(widths))]
    down = partial(ConvDown, padding=(0, 1))
    return UNet(
        channels,
        **both_ways(widths, blocks, attends, (down, ConvUp)),
        middle=(attend,),
        out_channels=out_channels,
        frequency_shift=1.0,
        style=Style(32, 1e-6, scale_shift=False, dropout=dropout, dtype=dtype),
    )


def adm_unet(
    channels: int = 128,
    multipliers: Sequence[int | float] = (1, 2, 2, 2),
    blocks: int = 2,
    attention_levels: Sequence[int] = (1,),
    num_classes: int = 0,
    null_label: bool = True,
    out_channels: int | None = None,
    head_channels: int = 64,
    resample: tuple[Resample, Resample] = CONVOLUTIONS,
    groups: int | None = None,
    dropout: float = 0.0,
    dtype: Dtype = jnp.float32,
    remat: bool = False,
) -> UNet:
    """The U-Net of Dhariwal & Nichol 2021, section 3: the embedding scales and shifts.

    Args:
      channels: width of the first level.
      multipliers: width of each level over `channels`.
      blocks: residual blocks per level.
      attention_levels: levels (0 is the full resolution) with self-attention; where there is
        one, the middle attends too.
      num_classes: size of the label set; 0 is unconditional.
      null_label: whether the label `num_classes` stands for none.
      out_channels: None for as many as the input; twice as many for a learned variance.
      head_channels: channels per attention head.
      resample: CONVOLUTIONS or the paper's RESIDUAL_BLOCKS.
      groups: of the norms; None is 32, and fewer for under 128 channels.
      dropout: rate inside residual blocks.
      dtype: of the computation, float32 or bfloat16.
      remat: see `UNet`.
    """
    widths = [round(m * channels) for m in multipliers]
    attend = partial(PixelAttention, head_channels=head_channels)
    attends = [attend if i in attention_levels else None for i in range(len(widths))]
    return UNet(
        channels,
        **both_ways(widths, blocks, attends, resample),
        middle=(attend if attention_levels else None,),
        out_channels=out_channels,
        num_classes=num_classes,
        null_label=null_label,
        style=Style(groups, dropout=dropout, dtype=dtype),
        remat=remat,
    )


def latent_unet(
    channels: int = 320,
    multipliers: Sequence[int | float] = (1, 2, 4, 4),
    blocks: int = 2,
    attention_levels: Sequence[int] = (0, 1, 2),
    heads: int = 8,
    depth: int = 1,
    num_classes: int = 0,
    dropout: float = 0.0,
    dtype: Dtype = jnp.float32,
    remat: bool = False,
) -> UNet:
    """The U-Net of Rombach et al. 2022, which reads tokens; the default is Stable Diffusion 1.

    Args:
      channels: width of the first level.
      multipliers: width of each level over `channels`.
      blocks: residual blocks per level.
      attention_levels: levels (0 is the full resolution) with transformers.
      heads: attention heads of each.
      depth: transformer blocks of each.
      num_classes: size of a label set, with a null label; 0 takes no label.
      dropout: rate inside residual blocks.
      dtype: of the computation, float32 or bfloat16.
      remat: see `UNet`.
    """
    widths = [round(m * channels) for m in multipliers]
    attend = partial(SpatialTransformer, heads=heads, depth=depth)
    attends = [attend if i in attention_levels else None for i in range(len(widths))]
    return UNet(
        channels,
        **both_ways(widths, blocks, attends, CONVOLUTIONS),
        middle=(attend,),
        num_classes=num_classes,
        style=Style(scale_shift=False, dropout=dropout, dtype=dtype),
        remat=remat,
    )


def ddpm_cifar10(dropout: float = 0.1, dtype: Dtype = jnp.float32) -> UNet:
    """CIFAR-10, 35.7M parameters: Ho et al. 2020, appendix B."""
    return ddpm_unet(dropout=dropout, dtype=dtype)


def ddpm_celebahq256(dropout: float = 0.0, dtype: Dtype = jnp.float32) -> UNet:
    """CelebA-HQ and LSUN at 256, 113.7M parameters: Ho et al. 2020, appendix B."""
    return ddpm_unet(128, (1, 1, 2, 2, 4, 4), 2, (4,), dropout=dropout, dtype=dtype)


adm = partial(
    adm_unet,
    num_classes=1000,
    null_label=False,
    out_channels=6,
    resample=RESIDUAL_BLOCKS,
    groups=32,
)


def adm_imagenet64(dropout: float = 0.1, dtype: Dtype = jnp.float32) -> UNet:
    """ImageNet 64 with labels, 295.9M parameters: Dhariwal & Nichol 2021, Table 11."""
    return adm(192, (1, 2, 3, 4), 3, (1, 2, 3), dropout=dropout, dtype=dtype)


def adm_imagenet256(dropout: float = 0.0, dtype: Dtype = jnp.float32) -> UNet:
    """ImageNet 256 with labels, 553.8M parameters: Dhariwal & Nichol 2021, Table 11."""
    return adm(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), dropout=dropout, dtype=dtype)


def stable_diffusion_v1(dtype: Dtype = jnp.float32) -> UNet:
    """Stable Diffusion 1 on latents of 4 channels and 768-wide tokens, 859.5M parameters."""
    return latent_unet(dtype=dtype)
