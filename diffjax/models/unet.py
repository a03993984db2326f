"""The U-Net of DDPM, ADM and latent diffusion: one module, and what its levels are made of.

Images are NHWC. Parameters are float32; norms, softmax and output are float32 whatever the
type of the computation. `diffjax.models.unet_presets` has the published ones.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.backbone import Stage, UNetBackbone, concatenate
from diffjax.models.checks import check_images
from diffjax.models.layers import full
from diffjax.models.resnet import Resample, ResNetBlock, Style, nearest
from diffjax.models.unet_attention import Attend
from diffjax.models.unet_conditions import Embedding, feature_table, token_context, with_residuals
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

Resize = Callable[..., Array]
"""(h (B, h, w, C), size=(H, W)) -> (B, H, W, C)."""


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
        x = ResNetBlock(self.style, self.features, name="residual")(x, embedding, train)
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
      guidance: width of the sinusoid of a guidance scale w that is taken as a condition, as in
        latent consistency models (Luo et al. 2023); 0 takes none.
      embedded: whether an embedding (B, embedding channels) is taken, and added to the time's.
      embedding_channels: None for 4 channels.
      frequency_shift: 1 in DDPM, 0 elsewhere.
      style: shared by all blocks.
      resize: (h, size=(H, W)) -> h, how the way up doubles h to the size of a skip, which is odd
        where an odd size was halved. `nearest_to` takes images of any size. None doubles exactly
        and takes multiples of 2^(levels - 1).
      remat: recompute a layer's inside in the backward pass, for less memory.
      scan_blocks: compile one layer for each run of equal ones; see `stack_blocks`. Transformers of
        many blocks are compiled once by `with_attention(unet, scanned)`.
    """

    channels: int
    down: tuple[Level, ...]
    up: tuple[Level, ...]
    middle: tuple[Attend | None, ...] | None = (None,)
    out_channels: int | None = None
    num_classes: int = 0
    null_label: bool = True
    vector: bool = False
    guidance: int = 0
    embedded: bool = False
    embedding_channels: int | None = None
    frequency_shift: float = 0.0
    style: Style = Style()
    resize: Resize | None = None
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
          x: images (B, H, W, C); H and W are multiples of 2^(levels - 1), or any with `resize`.
          t: times (B,), in steps of 0 to 1000.
          cond: `label` (B,), `vector` (B, V), `guidance` (B,), `embedding` (B, E) and `tokens`
            (B, L, D) perhaps with `token_mask` (B, L) or `image_tokens` (B, M, D), as the network
            has been made for them.
            Any U-Net takes `residuals`, which a ControlNet makes, and `features` of a T2I-Adapter,
            one for each level.
          train: whether dropout acts.
          skip: changes what the way up joins, such as `free_u(...)`.

        Returns:
          (B, H, W, out_channels), float32.
        """
        self.check(x, t)
        style, embedding = self.style, self.embed(t, cond)
        backbone, h, skips = self.lower(x, t, cond, train, embedding, joined(skip))
        h, skips = with_residuals(h, skips, (cond or {}).get("residuals"))
        stages = stages_up(self.up, style, embedding, train, self.resize)
        h = backbone.up(stages, h, skips)[-1]
        h = nn.silu(style.norm("norm_out")(h.astype(full(style.dtype))))
        features = self.out_channels or x.shape[-1]
        last = {"dtype": full(style.dtype), "kernel_init": nn.initializers.zeros}
        return style.conv(features, "conv_out", **last)(h)

    def lower(
        self,
        x: Array,
        t: Array,
        cond: Cond,
        train: bool,
        embedding: Array,
        join: Callable = concatenate,
        hint: Callable[[Array], Array] = lambda h: h,
    ) -> tuple[UNetBackbone, Array, list[Array]]:
        """The way down and the middle. To be called in a compact method.

        Args:
          x: images, as for `__call__`; so are t, cond and train.
          t: times.
          cond: conditions.
          train: whether dropout acts.
          embedding: from `embed`.
          join: how the way up reads a skip.
          hint: changes the output of the first layer.

        Returns:
          (what runs the way up, h after the middle, the skips).
        """
        context, features = token_context(cond), feature_table(cond, len(self.down))
        call = lambda layer, h: layer(h, embedding, context, train)  # noqa: E731
        backbone = UNetBackbone(call, join, self.remat, self.scan_blocks)
        h = hint(self.style.conv(self.down[0].channels, "conv_in")(x))
        stages = stages_down(self.down, self.style, embedding, train, features)
        h, skips = backbone.down(stages, h)
        if features:
            shapes = {i: feature.shape[1:] for i, feature in features.items()}
            raise InputError(f"no output of its level has the shape of cond['features']: {shapes}.")
        return (
            backbone,
            backbone.through(stages_middle(self.middle, self.style, h.shape[-1]), h),
            skips,
        )

    def check(self, x: Array, t: Array) -> None:
        """Refuse images or times that this U-Net cannot take; to be called first."""
        multiple = 1 if self.resize else 2 ** (len(self.down) - 1)
        check_images(self, x, t, layer="conv_in", multiple=multiple)

    def embed(self, t: Array, cond: Cond) -> Array:
        """Embedding of all that is one per image, (B, embedding channels)."""
        labels = self.num_classes + self.null_label if self.num_classes else 0
        return Embedding(
            self.channels,
            self.embedding_channels or 4 * self.channels,
            labels,
            self.vector,
            self.guidance,
            self.embedded,
            self.frequency_shift,
            self.style.dtype,
            name="embedding",
        )(t, cond)


def stages_down(
    levels: Sequence[Level],
    style: Style,
    embedding: Array,
    train: bool,
    features: dict[int, Array] | None = None,
) -> list[Stage]:
    """Stages of the way down, each entered by the resampling of the level before it.

    A level's feature is added where a level ends and its shape fits: before the resampling, or
    after it. It is taken out of `features`.
    """

    def add(h, i):
        fits = features and i in features and features[i].shape[1:] == h.shape[1:]
        return h + features.pop(i).astype(h.dtype) if fits else h

    def stage(i, level, before):
        def enter(h, size):
            h = before.resample(style, name=f"downsample_{i - 1}")(h, embedding, train)
            return add(h, i - 1)

        make = partial(Layer, style, level.channels, level.attend)
        enter = None if before is None or before.resample is None else enter
        leave = partial(add, i=i) if features else None
        return Stage(make, level.channels, level.blocks, f"down_{i}_", enter=enter, leave=leave)

    pairs = zip(levels, [None, *levels[:-1]], strict=True)
    return [stage(i, *pair) for i, pair in enumerate(pairs)]


def stages_middle(
    attends: Sequence[Attend | None] | None, style: Style, features: int
) -> list[Stage]:
    """A stage of one layer per entry of `UNet.middle`, and a last one without attention."""
    # Attention stands between blocks; a layer begins with its block. No two are known to be equal.
    layers = [] if attends is None else [*attends, None]
    return [
        Stage(partial(Layer, style, features, attend), features, 1, "middle_", first=i)
        for i, attend in enumerate(layers)
    ]


def stages_up(
    levels: Sequence[Level],
    style: Style,
    embedding: Array,
    train: bool,
    resize: Resize | None,
) -> list[Stage]:
    """Stages of the way up, the lowest resolution first, entered as in `stages_down`."""

    def stage(i, level, below):
        def enter(h, size):
            enlarge = nearest if resize is None else partial(resize, size=size)
            module = below.resample(style, name=f"upsample_{i + 1}", enlarge=enlarge)
            return module(h, embedding, train)

        make = partial(Layer, style, level.channels, level.attend)
        enter = None if below is None or below.resample is None else enter
        return Stage(make, level.channels, level.blocks, f"up_{i}_", enter=enter)

    pairs = zip(levels, [*levels[1:], None], strict=True)
    return [stage(i, *pair) for i, pair in enumerate(pairs)][::-1]


def with_attention(module: UNet, change: Callable[[Attend], Attend]) -> UNet:
    """A U-Net of which whatever attends is made by another constructor.

    Args:
      module: the U-Net.
      change: constructor -> constructor; it is not asked where nothing attends.
    """

    def changed(attend):
        return None if attend is None else change(attend)

    def levels(way: tuple[Level, ...]):
        return tuple(level._replace(attend=changed(level.attend)) for level in way)

    middle = module.middle and tuple(changed(attend) for attend in module.middle)
    return module.clone(down=levels(module.down), up=levels(module.up), middle=middle)


def joined(rule: SkipRule | None) -> Callable[[Array, Array, int, int], Array]:
    """h and a skip side by side, both changed by a rule first."""
    if rule is None:
        return concatenate
    return lambda h, skip, stage, index: concatenate(*rule(h, skip, stage, index))
