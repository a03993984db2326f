"""Linen modules; they know nothing of diffusion."""

from diffjax.models.logsnr import MonotoneLogSNR
from diffjax.models.network import network
from diffjax.models.uncertainty import Uncertainty
from diffjax.models.unet import UNet

__all__ = ["MonotoneLogSNR", "UNet", "Uncertainty", "network"]
