"""EDM2's U-Net, in which every layer keeps the magnitude of its input: Karras et al. 2024.

"Analyzing and Improving the Training Dynamics of Diffusion Models", Figure 21 (config G).
Images are NHWC; parameters are float32; `dtype` is the type of the computation, and norms,
softmax, embedding and output stay float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.models.backbone import UNetBackbone
from diffjax.models.checks import check_images
from diffjax.models.edm_blocks import Taps, downsample, one_hot_label, upsample
from diffjax.models.edm_stages import down_and_up
from diffjax.models.fourier import MPFourier
from diffjax.models.layers import Dtype, attention
from diffjax.models.magnitude import MPConv, mp_cat, mp_silu, mp_sum, normalize, unit_weight
from diffjax.models.stacking import is_run
from diffjax.models.uncertainty import Uncertainty
from diffjax.models.winograd import Convolve, convolve
from diffjax.types import Array, Cond, Params


def force_norm(params: Params) -> Params:
    """Every weight of an `MPConv` at unit norm: EDM2's forced weight normalisation, Eq. 66.

    Args:
      params: of a network of this file, or a tree that holds one.

    Returns:
      The same tree; gains and frequencies are untouched.
    """

    def forced(path, w):
        if path[-1] != "weight" or w.ndim < 2:  # every weight of an MPConv has two axes or more
            return w
        return jax.vmap(unit_weight)(w) if any(map(is_run, path)) else unit_weight(w)

    return unflatten_dict({path: forced(path, w) for path, w in flatten_dict(params).items()})


def forced_weight_norm() -> optax.GradientTransformation:
    """`force_norm` after each update: the last link of an `optax.chain`.

    Without it the weights grow, and the effective learning rate decays in an unknown way
    (EDM2, section 2.3).
    """

    def update(updates, state, params=None):
        after = force_norm(optax.apply_updates(params, updates))
        return jax.tree.map(jnp.subtract, after, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class EDM2Block(nn.Module):
    """A block of the encoder or decoder: EDM2, Figure 21.

    Attributes:
      features: channels of the output.
      encodes: whether it is of the encoder, which sets the width and the magnitude of each
        pixel before the residual branch.
      resample: of the block's input, None where the resolution stays.
      heads: of attention; 0 is none.
      dropout: rate inside the residual branch.
      residual_balance: share of the residual branch.
      attention_balance: share of attention.
      clip: largest absolute value of the output; None is any.
      convolve: how convolutions are computed; by default in fewer products on CPUs.
    """

    features: int
    encodes: bool
    resample: Callable[[Array], Array] | None = None
    heads: int = 0
    dropout: float = 0.0
    residual_balance: float = 0.3
    attention_balance: float = 0.3
    clip: float | None = 256.0
    convolve: Convolve = convolve

    @nn.compact
    def __call__(self, x: Array, embedding: Array, train: bool = False) -> Array:
        """x (B, H, W, C), embedding (B, D) -> (B, H', W', features)."""
        x = self.resample(x) if self.resample else x
        skip = MPConv(self.features, name="conv_skip") if x.shape[-1] != self.features else None
        if self.encodes:
            x = normalize(skip(x) if skip else x, (-1,))
        y = MPConv(self.features, (3, 3), self.convolve, name="conv_res0")(mp_silu(x))
        gain = self.param("emb_gain", nn.initializers.zeros, ())
        scale = 1 + MPConv(self.features, name="emb_linear")(embedding, gain)
        y = mp_silu(y * scale[:, None, None, :].astype(y.dtype))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = MPConv(self.features, (3, 3), self.convolve, name="conv_res1")(y)
        if skip and not self.encodes:
            x = skip(x)
        x = mp_sum(x, y, self.residual_balance)
        if self.heads:
            x = mp_sum(x, self.attend(x), self.attention_balance)
        return x if self.clip is None else jnp.clip(x, -self.clip, self.clip)

    def attend(self, x: Array) -> Array:
        """Self-attention over the pixels, of queries, keys and values at unit magnitude."""
        b, height, width, c = x.shape
        qkv = MPConv(3 * c, name="attn_qkv")(x.reshape(b, height * width, c))
        qkv = qkv.reshape(b, height * width, 3, self.heads, c // self.heads)
        qkv = normalize(qkv, (-1,))
        h = attention(*(qkv[:, :, i] for i in range(3)))
        return MPConv(c, name="attn_proj")(h).reshape(x.shape)


class EDM2UNet(nn.Module):
    """EDM2's network; t is c_noise = log(sigma)/4.

    Attributes:
      channels: width of the first level.
      multipliers: width of each level over `channels`; each level halves the resolution.
      blocks: residual blocks per level on the way down (one more on the way up).
      attention_levels: levels (0 is the full resolution) with self-attention.
      num_classes: 0 is unconditional; the label `num_classes` is the null label.
      noise_channels: Fourier features of t; None for the first level's width.
      embedding_channels: None for the widest level's width.
      head_channels: channels per attention head.
      label_balance: share of the label in the embedding.
      concat_balance: share of the skip connection in the decoder's input.
      residual_balance: share of the residual branch in a block.
      attention_balance: share of attention in a block.
      clip: largest absolute value of a block's output; None is any.
      taps: filter of resampling.
      dropout: rate inside residual branches.
      logvar_channels: width of `Uncertainty`, which `uncertainty` reads; 0 is none.
      stored_frequencies: the Fourier frequencies are among the parameters, without gradient.
      dtype: type of the computation, float32 or bfloat16.
      convolve: how the blocks' convolutions are computed; by default in fewer products on CPUs.
      remat: compute each block again in the backward pass instead of keeping its inside.
      scan_blocks: compile one block for each run of equal ones; see `stack_blocks`.
    """

    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention_levels: tuple[int, ...] = (2, 3)
    num_classes: int = 0
    noise_channels: int | None = None
    embedding_channels: int | None = None
    head_channels: int = 64
    label_balance: float = 0.5
    concat_balance: float = 0.5
    residual_balance: float = 0.3
    attention_balance: float = 0.3
    clip: float | None = 256.0
    taps: Taps = (1, 1)
    dropout: float = 0.0
    logvar_channels: int = 128
    stored_frequencies: bool = False
    dtype: Dtype = jnp.float32
    convolve: Convolve = convolve
    remat: bool = False
    scan_blocks: bool = False

    def setup(self):
        self.logvar = Uncertainty(self.logvar_channels, self.stored_frequencies)

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, H, W, C), t (B,), cond {"label": (B,)} or None -> (B, H, W, C)."""
        multiple = 2 ** (len(self.multipliers) - 1)
        ones = lambda channels: channels + 1  # noqa: E731
        check_images(self, x, t, layer="enc_0_conv", multiple=multiple, inputs=ones)
        embedding = self.embed(t, cond)
        if self.is_initializing() and self.logvar_channels:
            self.logvar(t)
        widths = [self.channels * multiplier for multiplier in self.multipliers]
        call = lambda block, h: block(h, embedding, train)  # noqa: E731
        join = lambda h, skip, *_: mp_cat(h, skip, self.concat_balance)  # noqa: E731
        backbone = UNetBackbone(call, join, self.remat, self.scan_blocks)
        resample = partial(downsample, taps=self.taps), partial(upsample, taps=self.taps)

        h = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1).astype(self.dtype)
        h = MPConv(widths[0], (3, 3), name="enc_0_conv")(h)
        levels = (widths, self.blocks, self.attention_levels)
        h = down_and_up(backbone, self.make, h, *levels, resample)

        gain = self.param("out_gain", nn.initializers.zeros, ())
        h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
        return MPConv(x.shape[-1], (3, 3), name="out_conv")(h, gain)

    def uncertainty(self, t: Array) -> Array:
        """u of t (B,) -> (B,), see `Uncertainty`; for `apply` with method="uncertainty"."""
        return self.logvar(t)

    def embed(self, t: Array, cond: Cond) -> Array:
        """Embedding of noise level and label, (B, D), after its SiLU."""
        width = self.embedding_channels or self.channels * max(self.multipliers)
        noise = self.noise_channels or self.channels * self.multipliers[0]
        h = MPFourier(noise, self.stored_frequencies, name="emb_fourier")(t)
        h = MPConv(width, name="emb_noise")(h)
        if self.num_classes:
            label = np.sqrt(self.num_classes) * one_hot_label(cond, self.num_classes, t.shape[0])
            h = mp_sum(h, MPConv(width, name="emb_label")(label), self.label_balance)
        return mp_silu(h)

    def make(self, features: int, attends: bool, resample: Any, name: str) -> EDM2Block:
        """A block of this network."""
        return EDM2Block(
            features=features,
            encodes=name.startswith("enc"),
            resample=resample,
            heads=features // self.head_channels if attends else 0,
            dropout=self.dropout,
            residual_balance=self.residual_balance,
            attention_balance=self.attention_balance,
            clip=self.clip,
            convolve=self.convolve,
            name=name,
        )


def edm2_xs(**options) -> EDM2UNet:
    """EDM2-XS of ImageNet, 124,713,253 parameters on latents of 64x64x4.

    The sizes of EDM2's presets `img512` and `img64`: 1000 classes, attention at 16x16 and 8x8 of
    64x64. The trained presets have dropout 0 up to S and 0.1 from M on, as here.

    Args:
      **options: over its attributes.
    """
    return _imagenet(128, 0.0, options)


def edm2_s(**options) -> EDM2UNet:
    """EDM2-S, 280,212,837 parameters; see `edm2_xs`."""
    return _imagenet(192, 0.0, options)


def edm2_m(**options) -> EDM2UNet:
    """EDM2-M, 497,807,781 parameters; see `edm2_xs`."""
    return _imagenet(256, 0.1, options)


def edm2_l(**options) -> EDM2UNet:
    """EDM2-L, 777,498,085 parameters; see `edm2_xs`."""
    return _imagenet(320, 0.1, options)


def edm2_xl(**options) -> EDM2UNet:
    """EDM2-XL, 1,119,283,749 parameters; see `edm2_xs`."""
    return _imagenet(384, 0.1, options)


def edm2_xxl(**options) -> EDM2UNet:
    """EDM2-XXL, 1,523,164,773 parameters; see `edm2_xs`."""
    return _imagenet(448, 0.1, options)


def _imagenet(channels: int, dropout: float, options: dict) -> EDM2UNet:
    return EDM2UNet(**{"channels": channels, "dropout": dropout, "num_classes": 1000, **options})
