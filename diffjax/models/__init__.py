"""Linen modules; they know nothing of diffusion."""

from diffjax.models.autoencoder import AutoencoderKL, Decoder, Encoder, kl_f8
from diffjax.models.classifier import Classifier, adm_classifier
from diffjax.models.discriminator import PatchDiscriminator
from diffjax.models.dit import DiT
from diffjax.models.logsnr import MonotoneLogSNR
from diffjax.models.mlp import ResidualMLP
from diffjax.models.mmdit import MMDiT
from diffjax.models.network import network
from diffjax.models.skips import free_u, skip_tuning
from diffjax.models.stacking import stack_blocks, unstack_blocks
from diffjax.models.uncertainty import Uncertainty
from diffjax.models.unet import UNet
from diffjax.models.unet_presets import (
    adm_imagenet64,
    adm_imagenet256,
    adm_unet,
    ddpm_celebahq256,
    ddpm_cifar10,
    ddpm_unet,
    latent_unet,
    stable_diffusion_v1,
)
from diffjax.models.uvit import UViT
from diffjax.models.vae import VAE
from diffjax.models.vq import VQModel

__all__ = [
    "VAE",
    "AutoencoderKL",
    "Classifier",
    "Decoder",
    "DiT",
    "Encoder",
    "MMDiT",
    "MonotoneLogSNR",
    "PatchDiscriminator",
    "ResidualMLP",
    "UNet",
    "UViT",
    "Uncertainty",
    "VQModel",
    "adm_classifier",
    "adm_imagenet64",
    "adm_imagenet256",
    "adm_unet",
    "ddpm_celebahq256",
    "ddpm_cifar10",
    "ddpm_unet",
    "free_u",
    "kl_f8",
    "latent_unet",
    "network",
    "skip_tuning",
    "stable_diffusion_v1",
    "stack_blocks",
    "unstack_blocks",
]
