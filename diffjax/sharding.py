"""Where arrays of the state are cut over a mesh, and where blocks put their parameters together.

The axes of a mesh are data, fsdp and tensor (`parallel.make_mesh`). Large arrays are cut along
fsdp, and their last axis along tensor.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import linen as nn
from jax import lax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

AXES = ("data", "fsdp", "tensor")
LARGE = 1024  # elements; a smaller array is copied to every device


def spec(shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Where an array of the state is cut: the one rule, which looks at the shape alone.

    A small array is not. Of a large one the last axis is cut along tensor, if it has at
    least two axes, and the largest of the others that divides along fsdp.

    Args:
      shape: of the array.
      mesh: from `parallel.make_mesh`, or its sizes alone.

    Returns:
      Its partition.
    """
    names: list[str | None] = [None] * len(shape)
    if math.prod(shape) < LARGE:
        return PartitionSpec()
    if len(shape) > 1 and mesh.shape["tensor"] > 1 and shape[-1] % mesh.shape["tensor"] == 0:
        names[-1] = "tensor"
    for axis in sorted(range(len(shape)), key=lambda axis: -shape[axis]):
        if mesh.shape["fsdp"] > 1 and not names[axis] and shape[axis] % mesh.shape["fsdp"] == 0:
            names[axis] = "fsdp"
            break
    return PartitionSpec(*names)


def without_fsdp(spec: PartitionSpec) -> PartitionSpec:
    """The same partition, whole along fsdp."""
    return PartitionSpec(*(None if name == "fsdp" else name for name in spec))


def gathered(step: Callable, stacked: Sequence[int] = ()) -> Callable:
    """The step of a block, which puts the block's parameters together along fsdp first.

    Where a block is computed again in the backward pass, it is gathered again, and where blocks
    are turns of a loop, one is gathered at a time: no device holds more than one block whole. The
    third stage of ZeRO: Rajbhandari et al. 2020. It does so inside `parallel.fsdp_gradient`, which
    says the mesh by `jax.sharding.use_abstract_mesh`; elsewhere it is the step.

    Args:
      step: (block, *args) -> result.
      stacked: leading axes that the parameters have in the state and not in the block.

    Returns:
      The same function.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.shape.get("fsdp", 1) == 1:
        return step

    def whole(array):
        cut = without_fsdp(spec((*stacked, *array.shape), mesh))[len(stacked) :]
        return lax.with_sharding_constraint(array, PartitionSpec(*cut))

    return nn.map_variables(step, "params", trans_in_fn=partial(jax.tree.map, whole))
