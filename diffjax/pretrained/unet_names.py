"""Names that the U-Net converters share: one function per kind of layer."""

from typing import Any

from diffjax.models.unet import Level, UNet
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


def kind(constructor: Any) -> Any:
    """What a `partial` is of, or the constructor itself."""
    return getattr(constructor, "func", constructor)


def inputs_down(levels: tuple[Level, ...]) -> tuple[dict[str, int], list[int]]:
    """Input channels of each layer of the way down by its name, and channels of the skips."""
    channels, found = levels[0].channels, {}
    skips = [channels]
    for i, level in enumerate(levels):
        for j in range(level.blocks):
            found[f"down_{i}_{j}"] = channels
            channels = level.channels
            skips.append(channels)
        if level.resample is not None:
            skips.append(channels)
    return found, skips


def inputs_of_layers(module: UNet) -> dict[str, int]:
    """Input channels of every layer of both ways, by its name."""
    found, skips = inputs_down(module.down)
    channels = module.down[-1].channels
    for i, level in reversed(list(enumerate(module.up))):
        for j in range(level.blocks):
            found[f"up_{i}_{j}"] = channels + skips.pop()
            channels = level.channels
    return found
