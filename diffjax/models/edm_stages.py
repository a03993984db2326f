"""The levels of EDM's and EDM2's networks as stages of a backbone, under their published names."""

from collections.abc import Callable, Sequence
from functools import partial

from flax import linen as nn

from diffjax.models.backbone import Stage, UNetBackbone
from diffjax.types import Array

Make = Callable[..., nn.Module]
"""(features, attends, resample, name=) -> block."""


def stages_down(
    make: Make,
    widths: Sequence[int],
    blocks: int,
    attention_levels: Sequence[int],
    enter: Callable[[Array, int], Array],
) -> list[Stage]:
    """Stages of the way down, the full resolution first.

    Args:
      make: makes a block.
      widths: of each level.
      blocks: per level.
      attention_levels: levels with self-attention.
      enter: (h, level) -> h at that level, of the level before.
    """
    return [
        Stage(
            partial(make, width, level in attention_levels, None),
            width,
            blocks,
            f"enc_{level}_block",
            enter=None if level == 0 else lambda h, size, level=level: enter(h, level),
        )
        for level, width in enumerate(widths)
    ]


def stages_up(
    make: Make,
    widths: Sequence[int],
    blocks: Callable[[bool], Sequence[tuple[int, bool]]],
    attention_levels: Sequence[int],
    enter: Callable[[Array, int], Array],
) -> list[Stage]:
    """Stages of the way up, the lowest resolution first.

    Args:
      make: makes a block.
      widths: of each level, the full resolution first.
      blocks: whether a level attends -> its runs of blocks: their number, and whether they attend.
      attention_levels: levels with self-attention.
      enter: (h, level) -> h at that level, of the level below.
    """
    stages = []
    for level, width in reversed(list(enumerate(widths))):
        up = None if level == len(widths) - 1 else lambda h, size, level=level: enter(h, level)
        first = 0
        for count, attends in blocks(level in attention_levels):
            one = partial(make, width, attends, None)
            stages.append(Stage(one, width, count, f"dec_{level}_block", first, up))
            first, up = first + count, None
    return stages


def middle(backbone: UNetBackbone, make: Make, h: Array, level: int) -> Array:
    """The two blocks at the lowest level, of which the first attends."""
    for i, attends in enumerate((True, False)):
        h = backbone.one(make(h.shape[-1], attends, None, name=f"dec_{level}_in{i}"), h)
    return h


def down_and_up(
    backbone: UNetBackbone,
    make: Make,
    h: Array,
    widths: Sequence[int],
    blocks: int,
    attention_levels: Sequence[int],
    resample: tuple[Callable[[Array], Array], Callable[[Array], Array]],
) -> Array:
    """The whole way of a network whose levels do nothing but run their blocks.

    Args:
      backbone: runs the blocks.
      make: makes a block.
      h: output of the first convolution (B, H, W, widths[0]).
      widths: of each level, the full resolution first.
      blocks: per level on the way down; one more on the way up.
      attention_levels: levels with self-attention.
      resample: to the next level, and back from it.

    Returns:
      (B, H, W, widths[0]).
    """

    def entering(name, resample):
        def enter(h, level):
            return backbone.one(make(h.shape[-1], False, resample, name=name.format(level)), h)

        return enter

    levels = (attention_levels,)
    down = stages_down(make, widths, blocks, *levels, entering("enc_{}_down", resample[0]))
    runs = lambda attends: [(blocks + 1, attends)]  # noqa: E731
    up = stages_up(make, widths, runs, *levels, entering("dec_{}_up", resample[1]))
    h, skips = backbone.down(down, h)
    h = middle(backbone, make, h, len(widths) - 1)
    return backbone.up(up, h, skips)[-1]
