"""Names that the U-Net converters share: one function per kind of layer, one walk over them all."""

from collections.abc import Callable
from typing import NamedTuple

from diffjax.models import Classifier, UNet
from diffjax.models.unet import Level
from diffjax.models.unet_attention import Attend
from diffjax.pretrained.naming import Entry, Layout, Names, conv, dense, same

Path = tuple[str, ...]


def conv_names(theirs: str, ours: Path) -> Names:
    """A convolution's kernel and bias."""
    return kernel_names(theirs, ours, conv)


def dense_names(theirs: str, ours: Path, piece: tuple[int, int] = (0, 1)) -> Names:
    """A dense layer's kernel and bias, or its piece of one of ours."""
    return kernel_names(theirs, ours, dense, piece)


def kernel_names(
    theirs: str, ours: Path, layout: Layout, piece: tuple[int, int] = (0, 1), bias: Layout = same
) -> Names:
    """A linear layer's kernel and bias in given layouts."""
    return {
        f"{theirs}.weight": Entry((*ours, "kernel"), layout, piece),
        f"{theirs}.bias": Entry((*ours, "bias"), bias, piece),
    }


def scale_names(theirs: str, ours: Path) -> Names:
    """A norm's scale and bias."""
    return {
        f"{theirs}.weight": Entry((*ours, "scale")),
        f"{theirs}.bias": Entry((*ours, "bias")),
    }


def merged(*tables: Names) -> Names:
    """One table of several, whose names all differ."""
    return {name: entry for table in tables for name, entry in table.items()}


class Place(NamedTuple):
    """A layer, or what resamples after a level.

    Attributes:
      way: "down", "middle" or "up".
      level: 0 is the full resolution; 0 in the middle.
      block: number of the layer within its level; of a resampling, the level's number of layers.
      index: layers of its way before it, in the order in which they run.
    """

    way: str
    level: int
    block: int
    index: int


class Spelling(NamedTuple):
    """How a reference spells the layers of a U-Net. Each function also takes our path.

    Attributes:
      residual: (place, path, skip) -> names of a residual block; `skip`: whether its width changes.
      attend: (place, path, attend, channels) -> names of what attends after it.
      resample: (place, path, level) -> names of what follows a level.
    """

    residual: Callable[[Place, Path, bool], Names]
    attend: Callable[[Place, Path, Attend, int], Names]
    resample: Callable[[Place, Path, Level], Names]


def layers_names(module: UNet | Classifier, spelling: Spelling) -> Names:
    """The tensors of all layers of a U-Net, or of a classifier, which has no way up."""
    down, up = module.down, getattr(module, "up", ())
    table, skips = {}, [down[0].channels]

    def layer(place, name, attend, inputs, channels):
        names = spelling.residual(place, (name, "residual"), inputs != channels)
        if attend is not None:
            names |= spelling.attend(place, (name, "attention"), attend, channels)
        return names

    inputs, index = down[0].channels, 0
    for i, level in enumerate(down):
        for j in range(level.blocks):
            place = Place("down", i, j, index)
            table |= layer(place, f"down_{i}_{j}", level.attend, inputs, level.channels)
            inputs, index = level.channels, index + 1
            skips.append(inputs)
        if level.resample is not None:
            place = Place("down", i, level.blocks, index)
            table |= spelling.resample(place, (f"downsample_{i}",), level)
            skips.append(inputs)
    for i, attend in enumerate(() if module.middle is None else (*module.middle, None)):
        table |= layer(Place("middle", 0, i, i), f"middle_{i}", attend, inputs, inputs)
    index = 0
    for i, level in reversed(list(enumerate(up))):
        for j in range(level.blocks):
            place, inputs = Place("up", i, j, index), inputs + skips.pop()
            table |= layer(place, f"up_{i}_{j}", level.attend, inputs, level.channels)
            inputs, index = level.channels, index + 1
        if level.resample is not None:
            place = Place("up", i, level.blocks, index)
            table |= spelling.resample(place, (f"upsample_{i}",), level)
    return table
