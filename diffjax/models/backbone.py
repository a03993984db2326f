"""The way down and up of every U-Net and autoencoder here, whatever its blocks are."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.stacking import repeat_runs, widths_in
from diffjax.types import Array

Size = tuple[int, int]


class Stage(NamedTuple):
    """Blocks of one resolution, and what leads to it.

    Attributes:
      make: (name=) -> block.
      features: channels of each block's output.
      blocks: number of blocks.
      name: of a block, without its number.
      first: number of the first block.
      enter: (h, size) -> h at this resolution, before the blocks. `size` is the (H, W) of the skip
        that h is joined to on the way up, and None on the way down. None: h stays as it is.
      leave: h -> h, after the blocks of a way down; its result is the last block's skip too.
    """

    make: Callable[..., Any]
    features: int
    blocks: int
    name: str
    first: int = 0
    enter: Callable[[Array, Size | None], Array] | None = None
    leave: Callable[[Array], Array] | None = None


Join = Callable[[Array, Array, int, Any], Array]
"""(h, skip, stage, index) -> input of a block on the way up.

`stage` counts the stages of that way and `index` its blocks, both from the lowest resolution.
"""


def concatenate(h: Array, skip: Array, *place: Any) -> Array:
    """h and a skip side by side, in channels, wherever they meet."""
    return jnp.concatenate([h, skip], axis=-1)


class UNetBackbone(NamedTuple):
    """Runs stages one after another. Call its methods within a module's compact `__call__`.

    Attributes:
      call: (block, h) -> h, with every condition bound.
      join: how the way up reads a skip.
      remat: recompute each block in the backward pass.
      scan: compile one block for each run of equal ones; see `stack_blocks`.
    """

    call: Callable[[Any, Array], Array]
    join: Join = concatenate
    remat: bool = False
    scan: bool = False

    def one(self, block: nn.Module, h: Array) -> Array:
        """One block applied to h, recomputed in the backward pass where all are."""
        return (nn.remat(self.call) if self.remat else self.call)(block, h)

    def down(self, stages: Sequence[Stage], h: Array) -> tuple[Array, list[Array]]:
        """All stages in order.

        Args:
          stages: the full resolution first.
          h: output of the first layer (B, H, W, C).

        Returns:
          (h at the last stage, the skips in order: the given h, and every output of a block and of
          an `enter`).
        """

        def step(block, h, _):
            h = self.call(block, h)
            return h, h

        skips = [h]
        for stage in stages:
            if stage.enter is not None:
                h = stage.enter(h, None)
                skips.append(h)
            h, outputs = self._repeat(stage, step, h, widths_in(h, stage.features, stage.blocks))
            skips += outputs
            if stage.leave is not None:
                h = skips[-1] = stage.leave(h)
        return h, skips

    def up(self, stages: Sequence[Stage], h: Array, skips: Sequence[Array]) -> list[Array]:
        """All stages in order; each block reads one skip, the last one first.

        Args:
          stages: the lowest resolution first.
          h: input of the first stage.
          skips: as `down` returns them.

        Returns:
          h after each stage.
        """
        skips, index, outputs = list(skips), 0, []
        for number, stage in enumerate(stages):

            def step(block, h, place, number=number):
                skip, index = place
                return self.call(block, self.join(h, skip, number, index)), None

            if stage.enter is not None:
                h = stage.enter(h, skips[-1].shape[1:3])
            places = [(skips.pop(), index + i) for i in range(stage.blocks)]
            widths = widths_in(h, stage.features, stage.blocks)
            kinds = [(w, skip.shape[-1]) for w, (skip, _) in zip(widths, places, strict=True)]
            h, _ = self._repeat(stage, step, h, kinds, places)
            index += stage.blocks
            outputs.append(h)
        return outputs

    def through(self, stages: Sequence[Stage], h: Array) -> Array:
        """All stages in order, without skips."""

        def step(block, h, _):
            return self.call(block, h), None

        for stage in stages:
            if stage.enter is not None:
                h = stage.enter(h, None)
            h, _ = self._repeat(stage, step, h, widths_in(h, stage.features, stage.blocks))
        return h

    def _repeat(self, stage, step, h, kinds, inputs=None):
        options = {"name": stage.name, "remat": self.remat, "scan": self.scan}
        return repeat_runs(stage.make, step, h, kinds, inputs=inputs, start=stage.first, **options)
