"""Linen modules; they know nothing of diffusion."""

from diffjax.models.dit import DiT
from diffjax.models.logsnr import MonotoneLogSNR
from diffjax.models.mlp import ResidualMLP
from diffjax.models.mmdit import MMDiT
from diffjax.models.network import network
from diffjax.models.stacking import stack_blocks, unstack_blocks
from diffjax.models.uncertainty import Uncertainty
from diffjax.models.unet import UNet
from diffjax.models.uvit import UViT

__all__ = [
    "DiT",
    "MMDiT",
    "MonotoneLogSNR",
    "ResidualMLP",
    "UNet",
    "UViT",
    "Uncertainty",
    "network",
    "stack_blocks",
    "unstack_blocks",
]
