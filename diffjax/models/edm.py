"""EDM's networks of CIFAR-10, FFHQ and AFHQv2, DDPM++ and NCSN++: Karras et al. 2022.

They are those of Song et al. 2021 (score SDEs, appendix H) in EDM's settings. Images are NHWC;
parameters are float32; `dtype` is the type of the computation, and norms, softmax, embedding
and output stay float32.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.models.backbone import UNetBackbone
from diffjax.models.checks import check_images
from diffjax.models.edm_blocks import (
    EDMBlock,
    Init,
    Inits,
    Taps,
    downsample,
    group_norm,
    linear,
    one_hot_label,
    upsample,
)
from diffjax.models.edm_stages import middle, stages_down, stages_up
from diffjax.models.fourier import FourierFeatures
from diffjax.models.layers import Dtype, sinusoidal_embedding
from diffjax.models.winograd import Convolve, convolve
from diffjax.types import Array, Cond


def _xavier(gain: float) -> Init:
    return Init(nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform"))


INITS = Inits(main=_xavier(1.0), last=_xavier(1e-5), qkv=_xavier(np.sqrt(0.2)))
EPSILON = 1e-6


class SongUNet(nn.Module):
    """DDPM++ and NCSN++ as EDM trains them; t is c_noise = log(sigma)/4.

    Attributes:
      channels: width of the first convolution.
      multipliers: width of each level over `channels`; each level halves the resolution.
      blocks: residual blocks per level on the way down (one more on the way up).
      attention_levels: levels (0 is the full resolution) with self-attention, of one head.
      num_classes: 0 is unconditional; the label `num_classes` is the null label.
      augment_dim: width of cond["augment"], what was done to the image; 0 is none.
      out_channels: None for as many as the input.
      embedding_multiplier: width of the embedding over `channels`.
      noise_multiplier: width of the embedding of t over `channels`.
      fourier: embed t in random Fourier features (NCSN++) rather than sinusoids (DDPM++).
      encoder: what each level is given of the image besides: nothing, the image at its size
        (skip), or a running sum with strided convolutions of it (residual, NCSN++).
      decoder: the image is made of the last level, or is a sum over all (skip).
      taps: filter of resampling, (1, 1) in DDPM++ and (1, 3, 3, 1) in NCSN++.
      dropout: rate inside residual blocks.
      stored_frequencies: the Fourier frequencies are among the parameters, without gradient.
      dtype: type of the computation, float32 or bfloat16.
      convolve: how the blocks' convolutions are computed; by default in fewer products on CPUs.
      remat: compute each block again in the backward pass instead of keeping its inside.
      scan_blocks: compile one block for each run of equal ones; see `stack_blocks`.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention_levels: tuple[int, ...] = (1,)
    num_classes: int = 0
    augment_dim: int = 0
    out_channels: int | None = None
    embedding_multiplier: int = 4
    noise_multiplier: int = 1
    fourier: bool = False
    encoder: Literal["standard", "skip", "residual"] = "standard"
    decoder: Literal["standard", "skip"] = "standard"
    taps: Taps = (1, 1)
    dropout: float = 0.1
    stored_frequencies: bool = False
    dtype: Dtype = jnp.float32
    convolve: Convolve = convolve
    remat: bool = False
    scan_blocks: bool = False

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, H, W, C), t (B,), cond {"label": (B,), "augment": (B, D)} -> (B, H, W, out)."""
        last = len(self.multipliers) - 1
        check_images(self, x, t, layer="enc_0_conv", multiple=2**last)
        embedding = self.embed(t, cond or {})
        call = lambda block, h: block(h, embedding, train)  # noqa: E731
        backbone = UNetBackbone(call, remat=self.remat, scan=self.scan_blocks)
        down, up = partial(downsample, taps=self.taps), partial(upsample, taps=self.taps)
        image = x

        def enter_down(h, level):
            nonlocal image
            h = backbone.one(self.make(h.shape[-1], False, down, name=f"enc_{level}_down"), h)
            h, image = self.add_image(h, image, level)
            return h

        def enter_up(h, level):
            return backbone.one(self.make(h.shape[-1], False, up, name=f"dec_{level}_up"), h)

        widths, levels = [self.channels * m for m in self.multipliers], self.attention_levels
        h = linear(x, self.channels, "enc_0_conv", INITS.main, self.dtype, (3, 3))
        stages = stages_down(self.make, widths, self.blocks, levels, enter_down)
        h, skips = backbone.down(stages, h)
        h = middle(backbone, self.make, h, last)
        runs = lambda attends: [(self.blocks, False), (1, attends)]  # noqa: E731
        stages = stages_up(self.make, widths, runs, levels, enter_up)
        ends = backbone.up(stages, h, skips)[1::2]  # after the second run of each level
        return self.to_image(ends, self.out_channels or x.shape[-1], up)

    def embed(self, t: Array, cond: dict) -> Array:
        """Embedding of noise level, label and augmentation, (B, D), after its SiLU."""
        width = self.channels * self.noise_multiplier
        if self.fourier:
            h = FourierFeatures(width, stored=self.stored_frequencies, name="map_noise")(t)
        else:
            h = sinusoidal_embedding(t, width, shift=1.0)
        h = jnp.roll(h, width // 2, axis=1)  # the sines first
        if self.num_classes:
            label = one_hot_label(cond, self.num_classes, t.shape[0])
            h = h + linear(np.sqrt(self.num_classes) * label, width, "map_label", INITS.main)
        if self.augment_dim:
            augment = cond.get("augment", jnp.zeros((t.shape[0], self.augment_dim)))
            h = h + linear(augment, width, "map_augment", INITS.main, use_bias=False)
        width = self.channels * self.embedding_multiplier
        h = nn.silu(linear(h, width, "map_layer0", INITS.main))
        return nn.silu(linear(h, width, "map_layer1", INITS.main))

    def make(self, features: int, attends: bool, resample: Any, name: str) -> EDMBlock:
        """A block of this network."""
        return EDMBlock(
            features=features,
            resample=resample,
            heads=int(attends),
            dropout=self.dropout,
            skip_scale=np.sqrt(0.5),
            epsilon=EPSILON,
            adaptive=False,
            project_resampled=True,
            inits=INITS,
            dtype=self.dtype,
            convolve=self.convolve,
            name=name,
        )

    def add_image(self, h: Array, image: Array, level: int) -> tuple[Array, Array]:
        """What a level of the encoder is given of the image, and the image for the next."""
        if self.encoder == "skip":
            image = downsample(image, self.taps)
            return h + linear(
                image, h.shape[-1], f"enc_{level}_aux_skip", INITS.main, self.dtype
            ), image
        if self.encoder == "residual":
            reach = len(self.taps) // 2  # the filter's padding and the kernel's own
            name, padding = f"enc_{level}_aux_residual", [(reach, reach)] * 2
            wide = linear(image, h.shape[-1], name, INITS.main, self.dtype, (3, 3), padding)
            h = np.sqrt(0.5) * (h + downsample(wide, self.taps, pad=0))
            return h, h
        return h, image

    def to_image(self, ends: Sequence[Array], channels: int, up: Callable[[Array], Array]) -> Array:
        """The image, float32, of the last level or of all: of what each level ends with."""
        out = None
        for level, h in zip(reversed(range(len(ends))), ends, strict=True):
            out = None if out is None else up(out)
            if level == 0 or self.decoder == "skip":
                more = self.level_image(h, level, channels)
                out = more if out is None else out + more
        return out

    def level_image(self, h: Array, level: int, channels: int) -> Array:
        """A level of the decoder as an image, float32."""
        h = nn.silu(group_norm(h, f"dec_{level}_aux_norm", EPSILON))
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return linear(h, channels, f"dec_{level}_aux_conv", INITS.last, dtype, (3, 3))


def ddpmpp_cifar10(**options) -> SongUNet:
    """EDM's DDPM++ of CIFAR-10 (its "vp" files), unconditional: 55,733,891 parameters.

    Args:
      **options: over its attributes, such as `num_classes=10`.
    """
    return SongUNet(**{"augment_dim": 9, "dropout": 0.13, **options})


def ncsnpp_cifar10(**options) -> SongUNet:
    """EDM's NCSN++ of CIFAR-10 (its "ve" files), unconditional: 56,397,827 parameters.

    Args:
      **options: over its attributes, such as `num_classes=10`.
    """
    ncsnpp = {"fourier": True, "noise_multiplier": 2, "encoder": "residual", "taps": (1, 3, 3, 1)}
    return ddpmpp_cifar10(**ncsnpp, **options)
