"""Networks by their flags."""

import functools
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import check_positive
from diffjax.models import DiT, adm_unet, dit_xl_2, edm


def unet(
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    blocks: int = 1,
    attention_levels: tuple[int, ...] = (),
    dropout: float = 0.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Callable:
    """A U-Net of residual blocks, `models.adm_unet`.

    Args:
      channels: width of the U-Net's first level.
      multipliers: width of each level over the first; each level halves the resolution.
      blocks: residual blocks per level.
      attention_levels: levels (0 is the full resolution) with self-attention.
      dropout: rate inside residual blocks.
      dtype: type of the network's computation; parameters and loss stay float32.
    """
    check_positive("a U-Net", channels=channels, blocks=blocks, multipliers=min(multipliers))
    return functools.partial(
        adm_unet,
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention_levels=attention_levels,
        dropout=dropout,
        dtype=jnp.dtype(dtype),
    )


def plain_unet(
    network: Callable = adm_unet,
    channels: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2, 2),
    blocks: int = 2,
    dropout: float = 0.1,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> nn.Module:
    """An unconditional U-Net.

    Args:
      network: its constructor, such as `models.ddpm_unet`; not a flag.
      channels: width of the U-Net's first level.
      multipliers: width of each level over the first; each level halves the resolution.
      blocks: residual blocks per level.
      dropout: rate inside residual blocks.
      dtype: type of the network's computation; parameters and loss stay float32.
    """
    check_positive("a U-Net", channels=channels, blocks=blocks, multipliers=min(multipliers))
    return network(channels, multipliers, blocks, dropout=dropout, dtype=jnp.dtype(dtype))


def song_unet(
    arch: Literal["ddpmpp", "ncsnpp"] = "ddpmpp",
    channels: int = 128,
    blocks: int = 4,
    dropout: float = 0.13,
    remat: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Callable[..., nn.Module]:
    """DDPM++ or NCSN++ of EDM, without its non-leaky augmentation.

    Args:
      arch: the network, DDPM++ (the reference's "vp" files) or NCSN++ ("ve").
      channels: a half of the width of every level.
      blocks: residual blocks per level.
      dropout: rate inside residual blocks.
      remat: compute blocks again in the backward pass, for memory.
      dtype: type of the network's computation; parameters and loss stay float32.
    """
    check_positive("a U-Net", channels=channels, blocks=blocks)
    networks = {"ddpmpp": edm.ddpmpp_cifar10, "ncsnpp": edm.ncsnpp_cifar10}
    sizes = {"channels": channels, "blocks": blocks, "dropout": dropout, "augment_dim": 0}
    return functools.partial(networks[arch], **sizes, remat=remat, dtype=jnp.dtype(dtype))


def dit(
    width: int = 1152,
    depth: int = 28,
    heads: int = 16,
    patch_size: int = 2,
    remat: bool = False,
    scan_blocks: bool = True,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> Callable[..., nn.Module]:
    """A diffusion transformer, `models.DiT` with a learned variance or without.

    Args:
      width: channels of a token.
      depth: number of blocks.
      heads: attention heads.
      patch_size: side of a patch.
      remat: recompute blocks in the backward pass to save memory.
      scan_blocks: compile one block for all.
      dtype: type of the network's computation; parameters and loss stay float32.
    """
    check_positive("a DiT", width=width, depth=depth, heads=heads, patch_size=patch_size)
    return functools.partial(
        dit_xl_2,
        width=width,
        depth=depth,
        heads=heads,
        patch_size=patch_size,
        remat=remat,
        scan_blocks=scan_blocks,
        dtype=jnp.dtype(dtype),
    )


def sized_network(
    width: int = 64,
    blocks: int = 2,
    dropout: float = 0.0,
    remat: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Callable[..., nn.Module]:
    """A U-Net or a transformer for images of any size.

    Args:
      width: channels of a U-Net's first level; a transformer's tokens have 6 times as many.
      blocks: residual blocks per level of a U-Net; a transformer has 6 times as many blocks.
      dropout: rate inside the residual blocks of a U-Net.
      remat: compute blocks again in the backward pass, for memory.
      dtype: type of the network's computation; parameters and loss stay float32.
    """
    check_positive("the network", width=width, blocks=blocks)
    kind = {"remat": remat, "dtype": jnp.dtype(dtype)}

    def make_unet(size, channels, classes):
        levels = 1
        while size % 2**levels == 0 and size // 2**levels >= 8 and levels < 5:
            levels += 1
        attends = tuple(i for i in range(levels) if size // 2**i <= 16)
        sizes = {"channels": width, "multipliers": (1, *(2,) * (levels - 1)), "blocks": blocks}
        return adm_unet(
            **sizes, attention_levels=attends, num_classes=classes, dropout=dropout, **kind
        )

    def make_dit(size, channels, classes):
        patch = next((p for p in (size // 16, 4, 2) if p and size % p == 0), 1)
        sizes = {"width": 6 * width, "depth": 6 * blocks, "heads": max(1, 6 * width // 64)}
        return DiT(
            patch_size=patch,
            num_classes=classes,
            learn_sigma=False,
            scan_blocks=True,
            **sizes,
            **kind,
        )

    return lambda network, *given: {"unet": make_unet, "dit": make_dit}[network](*given)
