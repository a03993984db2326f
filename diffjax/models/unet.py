"""The U-Net of DDPM, ADM and latent diffusion: one module, and what its levels are made of.

Images are NHWC. Parameters are float32; norms, softmax and output are float32 whatever the
type of the computation. `diffjax.models.unet_presets` has the published ones.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.layers import Dtype, full, sinusoidal_embedding
from diffjax.models.resnet import Resample, ResidualBlock, Style
from diffjax.models.stacking import repeat, repeat_runs, widths_in
from diffjax.models.unet_attention import Attend, Context
from diffjax.types import Array, Cond


class Level(NamedTuple):
    """One resolution of the way down or up.

    Attributes:
      channels: width.
      blocks: residual blocks; on the way up one more than on the way down.
      attend: what follows each of them, e.g. `partial(SelfAttention, heads=4)`; None: nothing.
      resample: what leads to the next level, e.g. `ConvDown`; None at the end.
    """

    channels: int
    blocks: int
    attend: Attend | None = None
    resample: Resample | None = None


SkipRule = Callable[[Array, Array, int, int], tuple[Array, Array]]
"""(h, skip, stage, index) -> (h, skip) before the two are joined; see `diffjax.models.skips`."""


class Embedding(nn.Module):
    """Time, label and vector as one vector for every block, after its SiLU.

    Attributes:
      channels: of the sinusoid.
      width: of the result.
      labels: rows of the label table; 0 for none.
      vector: whether to embed `cond["vector"]` (B, V).
      shift: of the sinusoid's frequencies.
      dtype: of the computation.
    """

    channels: int
    width: int
    labels: int
    vector: bool
    shift: float
    dtype: Dtype

    @nn.compact
    def __call__(self, t, cond):
        def dense(h, name):
            return nn.Dense(self.width, dtype=self.dtype, name=name)(h)

        h = sinusoidal_embedding(t, self.channels, shift=self.shift)
        h = dense(nn.silu(dense(h, "time_in")), "time_out")
        if self.labels:
            table = nn.Embed(self.labels, self.width, dtype=self.dtype, name="label")
            h = h + table(condition(cond, "label"))
        if self.vector:
            v = dense(condition(cond, "vector"), "vector_in")
            h = h + dense(nn.silu(v), "vector_out")
        return nn.silu(h)


class Layer(nn.Module):
    """A residual block and what follows it.

    Attributes:
      style: shared by the network.
      features: channels of the result.
      attend: as in `Level`.
    """

    style: Style
    features: int
    attend: Attend | None = None

    @nn.compact
    def __call__(self, x, embedding, context, train):
        x = ResidualBlock(self.style, self.features, name="residual")(x, embedding, train)
        if self.attend is None:
            return x
        return self.attend(self.style, name="attention")(x, context)


class UNet(nn.Module):
    """A U-Net over images, conditioned on time and optionally on a label, a vector and tokens.

    Attributes:
      channels: of the time's sinusoid; the width of the first level in most published networks.
      down: levels from the full resolution on.
      up: the same levels on the way back, in the same order.
      middle: what attends after each residual block at the lowest resolution but the first;
        () is one block, None no middle at all.
      out_channels: None for as many as the input; twice as many for a learned variance.
      num_classes: size of the label set; 0 takes no label.
      null_label: whether the label `num_classes` stands for none.
      vector: whether a vector (B, V) is taken as a condition.
      embedding_channels: None for 4 channels.
      frequency_shift: 1 in DDPM, 0 elsewhere.
      style: shared by all blocks.
      remat: recompute a layer's inside in the backward pass, for less memory.
      scan_blocks: compile one layer for each run of equal ones; see `stack_blocks`.
    """

    channels: int
    down: tuple[Level, ...]
    up: tuple[Level, ...]
    middle: tuple[Attend | None, ...] | None = (None,)
    out_channels: int | None = None
    num_classes: int = 0
    null_label: bool = True
    vector: bool = False
    embedding_channels: int | None = None
    frequency_shift: float = 0.0
    style: Style = Style()
    remat: bool = False
    scan_blocks: bool = False

    @nn.compact
    def __call__(
        self,
        x: Array,
        t: Array,
        cond: Cond = None,
        train: bool = False,
        skip: SkipRule | None = None,
    ) -> Array:
        """The raw output.

        Args:
          x: images (B, H, W, C); H and W are multiples of 2^(levels - 1).
          t: times (B,), in steps of 0 to 1000.
          cond: `label` (B,), `vector` (B, V), and `tokens` (B, L, D) perhaps with `token_mask`
            (B, L), as the network has been made for them.
          train: whether dropout acts.
          skip: changes what the way up joins, such as `free_u(...)`.

        Returns:
          (B, H, W, out_channels), float32.
        """
        check_size(x, len(self.down))
        style, context = self.style, token_context(cond)
        embedding = self.embed(t, cond)
        h = style.conv(self.down[0].channels, "conv_in")(x)
        options = {"remat": self.remat, "scan": self.scan_blocks}
        h, skips = way_down(style, self.down, options, h, embedding, context, train)
        h = middle(style, self.middle, options, h, embedding, context, train)
        h = way_up(style, self.up, options, h, skips, skip, embedding, context, train)
        h = nn.silu(style.norm("norm_out")(h.astype(full(style.dtype))))
        features = self.out_channels or x.shape[-1]
        last = {"dtype": full(style.dtype), "kernel_init": nn.initializers.zeros}
        return style.conv(features, "conv_out", **last)(h)

    def embed(self, t: Array, cond: Cond) -> Array:
        """Embedding of all that is one per image, (B, embedding channels)."""
        labels = self.num_classes + self.null_label if self.num_classes else 0
        return Embedding(
            self.channels,
            self.embedding_channels or 4 * self.channels,
            labels,
            self.vector,
            self.frequency_shift,
            self.style.dtype,
            name="embedding",
        )(t, cond)


def way_down(style, levels, options, h, embedding, context, train):
    """All levels to the lowest resolution; called within a module's `__call__`.

    Returns:
      (h, every activation that the way up will join, in order).
    """

    def forth(layer, h, _):
        h = layer(h, embedding, context, train)
        return h, h

    skips = [h]
    for i, level in enumerate(levels):
        make = partial(Layer, style, level.channels, level.attend)
        widths = widths_in(h, level.channels, level.blocks)
        h, more = repeat_runs(make, forth, h, widths, name=f"down_{i}_", **options)
        skips += more
        if level.resample is not None:
            h = level.resample(style, name=f"downsample_{i}")(h, embedding, train)
            skips.append(h)
    return h, skips


def middle(style, attends, options, h, embedding, context, train):
    """The blocks at the lowest resolution; called within a module's `__call__`."""
    if attends is None:
        return h

    def forth(layer, h, _):
        return layer(h, embedding, context, train), None

    # Attention stands between blocks; a layer begins with its block. No two are known to be equal.
    for i, attend in enumerate((*attends, None)):
        make = partial(Layer, style, h.shape[-1], attend)
        h, _ = repeat(make, forth, h, 1, name="middle_", first=i, remat=options["remat"])
    return h


def way_up(style, levels, options, h, skips, skip, embedding, context, train):
    """All levels back to the full resolution; called within a module's `__call__`."""
    index = 0
    for stage, (i, level) in enumerate(reversed(list(enumerate(levels)))):

        def back(layer, h, joined, stage=stage):
            other, index = joined
            if skip is not None:
                h, other = skip(h, other, stage, index)
            return layer(jnp.concatenate([h, other], axis=-1), embedding, context, train), None

        make = partial(Layer, style, level.channels, level.attend)
        joined = [(skips.pop(), index + j) for j in range(level.blocks)]
        widths = widths_in(h, level.channels, level.blocks)
        kinds = [(width, other.shape[-1]) for width, (other, _) in zip(widths, joined, strict=True)]
        h, _ = repeat_runs(make, back, h, kinds, inputs=joined, name=f"up_{i}_", **options)
        index += level.blocks
        if level.resample is not None:
            h = level.resample(style, name=f"upsample_{i}")(h, embedding, train)
    return h


def condition(cond: Cond, name: str) -> Array:
    """One entry of the conditions.

    Raises:
      InputError: it is not there.
    """
    if cond is None or name not in cond:
        raise InputError(f"this U-Net needs cond[{name!r}]; got {sorted(cond or {})}.")
    return cond[name]


def token_context(cond: Cond) -> Context | None:
    """The tokens and their mask, where there are any."""
    if cond is None or "tokens" not in cond:
        return None
    mask = cond.get("token_mask")
    return Context(cond["tokens"], None if mask is None else mask.astype(bool))


def check_size(x: Array, levels: int) -> None:
    """Refuse images that cannot be halved and doubled back.

    Raises:
      InputError: names the multiple.
    """
    multiple = 2 ** (levels - 1)
    if any(n % multiple for n in x.shape[1:3]):
        raise InputError(
            f"a U-Net of {levels} levels needs a height and width of multiples of {multiple}; "
            f"got {x.shape[1]} x {x.shape[2]}; pad or crop the images."
        )
