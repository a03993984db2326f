"""Linen modules; they know nothing of diffusion."""

from diffjax.models.network import network
from diffjax.models.unet import UNet

__all__ = ["UNet", "network"]
