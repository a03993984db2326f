"""The convolutional autoencoder of latent diffusion: Rombach et al. 2022.

Images and latents are NHWC. Parameters are float32; `dtype` is the type of the
computation, and norms, softmax and outputs are float32 at least.
"""

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.backbone import Stage, UNetBackbone
from diffjax.models.checks import check_images
from diffjax.models.layers import Dtype, attention, full
from diffjax.models.resnet import Style, nearest
from diffjax.models.winograd import Convolve, convolve
from diffjax.types import Array

EPSILON = 1e-6
LOGVAR_RANGE = (-30.0, 20.0)  # beyond it a variance or its inverse overflows


class AutoencoderBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv; plus the input, by a 1x1 layer where widths differ."""

    features: int
    style: Style

    @nn.compact
    def __call__(self, x):
        style = self.style
        h = nn.silu(style.norm("norm_in")(x))
        h = style.conv(self.features, "conv_in")(h)
        h = nn.silu(style.norm("norm_out")(h))
        h = style.conv(self.features, "conv_out")(h)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, dtype=style.dtype, name="skip")(x)
        return x + h


class AutoencoderAttention(nn.Module):
    """Attention of one head over the pixels, plus the input."""

    style: Style

    @nn.compact
    def __call__(self, x):
        b, height, width, c = x.shape
        h = self.style.norm("norm")(x).reshape(b, height * width, c)
        qkv = nn.Dense(3 * c, dtype=self.style.dtype, name="qkv")(h)
        q, k, v = jnp.split(qkv[:, :, None, :], 3, axis=-1)
        h = nn.Dense(c, dtype=self.style.dtype, name="projection")(attention(q, k, v))
        return x + h.reshape(x.shape)


class Trunk(nn.Module):
    """What encoder and decoder share: their hyperparameters, a level, the middle, the output.

    Attributes:
      out_channels: of the result; of an encoder twice the latents' for mean and log-variance.
      channels: width of each level, the finest first; each next one has half the resolution.
      blocks: residual blocks per level of the encoder; the decoder has one more.
      attention_levels: levels (0 is the finest) with attention after each block.
      middle_attention: attention between the two blocks at the coarsest resolution.
      groups: of the group norms; divides every width.
      dtype: type of the computation, float32 or bfloat16.
      convolve: how 3x3 convolutions are computed; by default in fewer products on CPUs.
      remat: compute blocks again in the backward pass instead of keeping their insides.
      scan_blocks: compile one block for each run of equal ones at a level without attention; see
        `stack_blocks`.
    """

    out_channels: int
    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    middle_attention: bool = True
    groups: int = 32
    dtype: Dtype = jnp.float32
    convolve: Convolve = convolve
    remat: bool = False
    scan_blocks: bool = False

    @property
    def style(self):
        """What all blocks share."""
        return Style(self.groups, EPSILON, dtype=self.dtype, convolve=self.convolve)

    def block(self, features, name):
        """Makes a residual block to `features` channels."""
        module = nn.remat(AutoencoderBlock) if self.remat else AutoencoderBlock
        return module(features, self.style, name=name)

    def attend(self, name):
        """Makes an attention block."""
        module = nn.remat(AutoencoderAttention) if self.remat else AutoencoderAttention
        return module(self.style, name=name)

    def level(self, x, level, blocks, name):
        """The blocks of one resolution, called `name`_0, `name`_1, ..."""
        features, attends = self.channels[level], level in self.attention_levels

        def make(name):
            block = self.block(features, name)
            if not attends:
                return block
            attend = self.attend(f"{name}_attention")
            return lambda x: attend(block(x))

        # Attention is a module of its own, beside its block, so that such levels are not scanned.
        scan = self.scan_blocks and not attends
        backbone = UNetBackbone(lambda block, x: block(x), scan=scan)
        return backbone.through([Stage(make, features, blocks, f"{name}_")], x)

    def middle(self, x):
        """Two blocks at the coarsest resolution."""
        x = self.block(self.channels[-1], "middle_0")(x)
        if self.middle_attention:
            x = self.attend("middle_attention")(x)
        return self.block(self.channels[-1], "middle_1")(x)

    def output(self, x):
        """norm, SiLU, conv."""
        x = nn.silu(self.style.norm("norm_out")(x))
        return self.style.conv(self.out_channels, "conv_out", dtype=full(self.dtype))(x)


class Encoder(Trunk):
    """Images (B, H, W, C) to (B, H/f, W/f, out_channels), f = 2^(levels - 1)."""

    @nn.compact
    def __call__(self, x):
        check_images(self, x, layer="conv_in", multiple=2 ** (len(self.channels) - 1))
        x = self.style.conv(self.channels[0], "conv_in")(x)
        for level, width in enumerate(self.channels):
            x = self.level(x, level, self.blocks, f"down_{level}")
            if level < len(self.channels) - 1:
                # One row below and one column to the right, as in the published weights.
                halved = {"strides": 2, "padding": ((0, 1), (0, 1))}
                x = self.style.conv(width, f"downsample_{level}", **halved)(x)
        return self.output(self.middle(x))


class Decoder(Trunk):
    """Latents (B, h, w, c) to (B, f h, f w, out_channels), f = 2^(levels - 1)."""

    @nn.compact
    def __call__(self, z):
        check_images(self, z, layer="conv_in")
        x = self.style.conv(self.channels[-1], "conv_in")(z)
        x = self.middle(x)
        for level in reversed(range(len(self.channels))):
            x = self.level(x, level, self.blocks + 1, f"up_{level}")
            if level > 0:
                x = self.style.conv(x.shape[-1], f"upsample_{level}")(nearest(x))
        return self.output(x)


class PointAutoencoder(nn.Module):
    """Two nets between images and latents that are points, without a variance.

    Attributes:
      encoder: x -> latents.
      decoder: latents -> x.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __call__(self, x: Array) -> Array:
        """The reconstruction of x (B, H, W, C)."""
        return self.decode(self.encode(x))

    def encode(self, x: Array) -> Array:
        """x (B, H, W, C) in [-1, 1] to latents (B, h, w, c)."""
        return self.encoder(x)

    def decode(self, z: Array) -> Array:
        """Latents (B, h, w, c) to x."""
        return self.decoder(z)


class AutoencoderKL(nn.Module):
    """An autoencoder whose latents are Gaussian, pulled to N(0, I): Rombach et al. 2022.

    Attributes:
      encoder: x -> (B, h, w, 2 latent_channels).
      decoder: latents -> x.
      latent_channels: of the latents.
      quant_conv: whether a 1x1 layer follows the encoder.
      post_quant_conv: whether one precedes the decoder.
    """

    encoder: nn.Module
    decoder: nn.Module
    latent_channels: int = 4
    quant_conv: bool = True
    post_quant_conv: bool = True

    def setup(self):
        if self.quant_conv:
            self.to_moments = nn.Dense(2 * self.latent_channels)
        if self.post_quant_conv:
            self.from_latents = nn.Dense(self.latent_channels)

    def __call__(self, x: Array) -> tuple[Array, Array, Array]:
        """x (B, H, W, C) -> (reconstruction of the mean's latents, mean, logvar)."""
        mean, logvar = self.encode(x)
        return self.decode(mean), mean, logvar

    def encode(self, x: Array) -> tuple[Array, Array]:
        """x (B, H, W, C) in [-1, 1] -> (mean, logvar) (B, h, w, c), logvar in [-30, 20]."""
        moments = self.encoder(x)
        if self.quant_conv:
            moments = self.to_moments(moments)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

    def decode(self, z: Array) -> Array:
        """Latents (B, h, w, c) -> x (B, H, W, C)."""
        return self.decoder(self.from_latents(z) if self.post_quant_conv else z)


def kl_f8(latent_channels: int = 4, quant_convs: bool = True, **kwargs) -> AutoencoderKL:
    """Stable Diffusion's autoencoder of 8-fold downsampling, 83,653,863 parameters.

    Args:
      latent_channels: 4 (Stable Diffusion 1, 2 and XL) or 16 (3, FLUX).
      quant_convs: False for the latter two.
      **kwargs: `dtype`, `convolve`, `remat` and `scan_blocks` of `Encoder` and `Decoder`.
    """
    return AutoencoderKL(
        Encoder(2 * latent_channels, **kwargs),
        Decoder(3, **kwargs),
        latent_channels,
        quant_convs,
        quant_convs,
    )
