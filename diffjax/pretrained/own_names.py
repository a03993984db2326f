"""Families whose Linen layers bear the reference's own names, so that no table is written."""

from typing import Any

from flax import linen as nn

from diffjax.pretrained.architecture import Architecture, Module
from diffjax.pretrained.edm import table
from diffjax.pretrained.naming import Layout, Names, conv, dense, same

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def own_names(module: nn.Module, inputs: tuple) -> Names:
    """The names of a module's layers, joined by dots: "ff.net.2" of "block" is block.ff.net.2."""
    return table(module, inputs, _name, layout_of)


def _name(path: tuple[str, ...]) -> str:
    return ".".join([*path[:-1], LEAVES.get(path[-1], path[-1])])


def layout_of(path: tuple[str, ...], shape: tuple[int, ...]) -> Layout:
    """The layout of a leaf: of a convolution, a dense layer or anything else."""
    if path[-1] != "kernel":
        return same
    return conv if len(shape) == 4 else dense


def part(module: nn.Module, inputs: tuple, **options: Any) -> Architecture:
    """The architecture of a `Module`: a part of another system."""

    def finish(params, config):
        def network(params, *inputs):
            return module.apply({"params": params}, *inputs)

        return Module(network, params, module, config)

    return Architecture(module, inputs, own_names(module, inputs), finish, **options)
