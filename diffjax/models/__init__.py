"""Linen modules; they know nothing of diffusion.

`__all__` is the public API: networks of `__call__(x, t, cond, train)`, their published sizes, and
what turns one into a function. Blocks and layers that a network is made of are imported from their
own module, e.g. `from diffjax.models.dit import DiTBlock`.
"""

from diffjax.models.autoencoder import AutoencoderKL, Decoder, Encoder, kl_f8
from diffjax.models.classifier import Classifier, adm_classifier
from diffjax.models.dhariwal import DhariwalUNet
from diffjax.models.discriminator import PatchDiscriminator
from diffjax.models.dit import (
    DiT,
    dit_b_2,
    dit_b_4,
    dit_b_8,
    dit_l_2,
    dit_l_4,
    dit_l_8,
    dit_s_2,
    dit_s_4,
    dit_s_8,
    dit_xl_2,
    dit_xl_4,
    dit_xl_8,
)
from diffjax.models.edm import SongUNet, ddpmpp_cifar10, ncsnpp_cifar10
from diffjax.models.edm2 import EDM2UNet, edm2_l, edm2_m, edm2_s, edm2_xl, edm2_xs, edm2_xxl
from diffjax.models.logsnr import MonotoneLogSNR
from diffjax.models.mlp import ResidualMLP
from diffjax.models.mmdit import MMDiT
from diffjax.models.network import network, with_features
from diffjax.models.patched import Patched
from diffjax.models.skips import free_u, skip_tuning
from diffjax.models.stacking import stack_blocks, unstack_blocks
from diffjax.models.super_resolution import SuperResolution
from diffjax.models.two_times import TwoTimes
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
from diffjax.models.weakened import (
    blurred_attention,
    by_name,
    perturbed_attention,
    skip_layers,
    smoothed_attention,
)
from diffjax.models.winograd import winograd

__all__ = [
    "VAE",
    "AutoencoderKL",
    "Classifier",
    "Decoder",
    "DhariwalUNet",
    "DiT",
    "EDM2UNet",
    "Encoder",
    "MMDiT",
    "MonotoneLogSNR",
    "PatchDiscriminator",
    "Patched",
    "ResidualMLP",
    "SongUNet",
    "SuperResolution",
    "TwoTimes",
    "UNet",
    "UViT",
    "Uncertainty",
    "VQModel",
    "adm_classifier",
    "adm_imagenet64",
    "adm_imagenet256",
    "adm_unet",
    "blurred_attention",
    "by_name",
    "ddpm_celebahq256",
    "ddpm_cifar10",
    "ddpm_unet",
    "ddpmpp_cifar10",
    "dit_b_2",
    "dit_b_4",
    "dit_b_8",
    "dit_l_2",
    "dit_l_4",
    "dit_l_8",
    "dit_s_2",
    "dit_s_4",
    "dit_s_8",
    "dit_xl_2",
    "dit_xl_4",
    "dit_xl_8",
    "edm2_l",
    "edm2_m",
    "edm2_s",
    "edm2_xl",
    "edm2_xs",
    "edm2_xxl",
    "free_u",
    "kl_f8",
    "latent_unet",
    "ncsnpp_cifar10",
    "network",
    "perturbed_attention",
    "skip_layers",
    "skip_tuning",
    "smoothed_attention",
    "stable_diffusion_v1",
    "stack_blocks",
    "unstack_blocks",
    "winograd",
    "with_features",
]
