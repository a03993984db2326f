"""ControlNets of transformers: a copy of their first blocks that reads a picture.

Chen et al. 2024 (PixArt-delta, section 3.2): what leaves a block of the copy, through a layer that
begins at zero, is added to what leaves a block of the transformer. Here, as in the released
ControlNets of Stable Diffusion 3, block i of a transformer of N reads residual floor(i n / N) of n,
so that the copy may have fewer blocks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.dit import DiT
from diffjax.models.mmdit import MMDiT
from diffjax.models.patches import patchify
from diffjax.models.transformer import dense, zeros
from diffjax.models.unet_conditions import condition
from diffjax.types import Array, Cond


def with_picture(h: Array, x: Array, cond: Cond, size: int, dtype: Any) -> Array:
    """Tokens plus the patches of cond["image"] through a layer that begins at zero.

    To be called in a compact method; the layer is `hint`.

    Args:
      h: tokens (B, T, D).
      x: what is denoised (B, H, W, C).
      cond: `image` (B, H, W, C').
      size: of a patch.
      dtype: of the computation.

    Raises:
      InputError: there is no picture, or it is not of x's size.
    """
    picture = condition(cond, "image")
    if picture.ndim != 4 or picture.shape[:3] != x.shape[:3]:
        raise InputError(
            f"this ControlNet takes cond['image'] ({', '.join(map(str, x.shape[:3]))}, C); got the "
            f"shape {picture.shape}. Resize or encode the picture."
        )
    hint = dense(h.shape[-1], dtype, kernel_init=zeros, name="hint")
    return h + hint(patchify(picture, size))


def through_zeros(outputs: list[Array], dtype: Any) -> tuple[Array, ...]:
    """Each through a layer of its own that begins at zero, `zero_{i}`; in a compact method."""
    return tuple(
        dense(h.shape[-1], dtype, kernel_init=zeros, name=f"zero_{i}")(h)
        for i, h in enumerate(outputs)
    )


class DiTControlNet(DiT):
    """The first blocks of a `DiT`, which read a picture. `depth` is their number."""

    @nn.compact
    def __call__(
        self, x: Array, t: Array, cond: Cond = None, train: bool = False
    ) -> tuple[Array, ...]:
        """The residuals (B, T, width) of the transformer, one for each block here.

        Args:
          x: what the transformer is given, (B, H, W, C).
          t: times (B,), as the transformer takes them.
          cond: `image` (B, H, W, C'), and what else the transformer takes.
          train: no effect.
        """
        h, where = self.tokens(x, t)
        h = with_picture(h, x, cond, self.patch_size, self.dtype)
        context = self.context(where, t, cond)
        make = partial(self.block, heads=self.heads, dtype=self.dtype)
        _, outputs = self.repeat(make, lambda block, h, _: (block(h, context),) * 2, h)
        return through_zeros(outputs, self.dtype)


class MMDiTControlNet(MMDiT):
    """The first blocks of an `MMDiT`, none of which ends the text, and which read a picture."""

    @nn.compact
    def __call__(
        self, x: Array, t: Array, cond: Cond = None, train: bool = False
    ) -> tuple[Array, ...]:
        """The residuals (B, T, width) of the image; arguments as those of `DiTControlNet`."""
        image, text, context = self.enter(x, t, cond)
        image = with_picture(image, x, cond, self.patch_size, self.dtype)

        def step(block, streams, _):
            streams = block(streams, context)
            return streams, streams[0]

        _, outputs = self.repeat(step, (image, text), self.depth)
        return through_zeros(outputs, self.dtype)


def transformer_controlnet(module: DiT | MMDiT, depth: int) -> DiTControlNet | MMDiTControlNet:
    """A ControlNet of the first blocks of a transformer, under its names.

    Args:
      module: the transformer; with `scan_blocks`, its parameters need `unstack_blocks` before
        `upon`.
      depth: number of blocks, at most the transformer's.

    Returns:
      The ControlNet.

    Raises:
      InputError: more blocks than the transformer has.
    """
    if not 1 <= depth <= module.depth:
        raise InputError(
            f"a ControlNet copies 1 to {module.depth} blocks of this transformer; got {depth}."
        )
    make: Callable = MMDiTControlNet if isinstance(module, MMDiT) else DiTControlNet
    names = type(module).__dataclass_fields__.keys() - {"parent", "name"}
    attributes = {name: getattr(module, name) for name in names}
    return make(**attributes | {"depth": depth, "scan_blocks": False})
