"""The way down and up of EDM's networks, whatever their blocks are."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.edm_blocks import downsample, upsample
from diffjax.models.stacking import repeat_runs, widths_in
from diffjax.types import Array


class Walk(NamedTuple):
    """How a network of these blocks goes down and up; its methods are called in `__call__`.

    Attributes:
      make: (features, attends, resample, name=) -> block.
      call: (block, x) -> y, with the embedding bound.
      join: (h, skip) -> the input of a block on the way up.
      remat: compute each block again in the backward pass.
      scan: compile one block for each run of equal ones; see `stack_blocks`.
    """

    make: Callable[..., nn.Module]
    call: Callable[[nn.Module, Array], Array]
    join: Callable[[Array, Array], Array]
    remat: bool
    scan: bool

    def one(
        self,
        h: Array,
        name: str,
        features: int,
        attends: bool = False,
        resample: Callable[[Array], Array] | None = None,
    ) -> Array:
        """A block applied to h."""
        call = nn.remat(self.call) if self.remat else self.call
        return call(self.make(features, attends, resample, name=name), h)

    def down(
        self, h: Array, name: str, features: int, attends: bool, count: int
    ) -> tuple[Array, list[Array]]:
        """Blocks {name}0, {name}1, ... at one resolution: (h, what each of them gave)."""

        def forth(block, h, _):
            h = self.call(block, h)
            return h, h

        widths = widths_in(h, features, count)
        return self._repeat(forth, h, name, features, attends, widths, None)

    def up(
        self, h: Array, name: str, features: int, attends: bool, skips: Sequence[Array]
    ) -> Array:
        """Blocks {name}0, {name}1, ... at one resolution, each of h and a skip."""

        def back(block, h, skip):
            return self.call(block, self.join(h, skip)), None

        widths = widths_in(h, features, len(skips))
        kinds = [(width, skip.shape[-1]) for width, skip in zip(widths, skips, strict=True)]
        return self._repeat(back, h, name, features, attends, kinds, skips)[0]

    def _repeat(self, step, h, name, features, attends, kinds, inputs):
        make = partial(self.make, features, attends, None)
        options = {"name": name, "remat": self.remat, "scan": self.scan}
        return repeat_runs(make, step, h, kinds, inputs=inputs, **options)

    def down_and_up(
        self,
        h: Array,
        widths: Sequence[int],
        blocks: int,
        attention_levels: Sequence[int],
        resample: tuple[Callable[[Array], Array], Callable[[Array], Array]] = (
            downsample,
            upsample,
        ),
    ) -> Array:
        """The way down to the lowest resolution and back, with a skip from every block.

        Args:
          h: output of the first convolution (B, H, W, widths[0]).
          widths: of each level, the full resolution first.
          blocks: per level on the way down; one more on the way up.
          attention_levels: levels with self-attention.
          resample: to the next level, and back from it.

        Returns:
          (B, H, W, widths[0]).
        """
        (down, up), skips, last = resample, [h], len(widths) - 1
        for level, width in enumerate(widths):
            if level > 0:
                h = self.one(h, f"enc_{level}_down", h.shape[-1], resample=down)
                skips.append(h)
            attends = level in attention_levels
            h, more = self.down(h, f"enc_{level}_block", width, attends, blocks)
            skips += more
        h = self.one(h, f"dec_{last}_in0", h.shape[-1], attends=True)
        h = self.one(h, f"dec_{last}_in1", h.shape[-1])
        for level, width in reversed(list(enumerate(widths))):
            if level < last:
                h = self.one(h, f"dec_{level}_up", h.shape[-1], resample=up)
            joined = [skips.pop() for _ in range(blocks + 1)]
            h = self.up(h, f"dec_{level}_block", width, level in attention_levels, joined)
        return h


def concatenate(h: Array, skip: Array) -> Array:
    """h and a skip side by side, in channels."""
    return jnp.concatenate([h, skip], axis=-1)
