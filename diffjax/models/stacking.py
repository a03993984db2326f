"""Repeated blocks: one after another, or as one `nn.scan` over stacked parameters."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.types import Params


def repeat(
    make: Callable[..., nn.Module],
    step: Callable[[nn.Module, Any, Any], tuple[Any, Any]],
    carry: Any,
    depth: int,
    *,
    inputs: Any = None,
    name: str = "block",
    remat: bool = False,
    scan: bool = False,
) -> tuple[Any, Any]:
    """`depth` blocks of one shape, each on the output of the one before.

    To be called in a compact method. The parameters are those of {name}_0, {name}_1, ... or
    with `scan` those of {name}s, with a leading axis: `stack_blocks` and `unstack_blocks`
    turn one into the other.

    Args:
      make: name -> block.
      step: (block, carry, input) -> (carry, output).
      carry: what the first block is given.
      depth: number of blocks.
      inputs: one per block, as a list or a leading axis; None where there is none.
      name: of one block.
      remat: recompute a block in the backward pass instead of keeping what is inside it.
      scan: compile one block for all.

    Returns:
      (the last carry, the outputs as `inputs` would take them).
    """
    if remat:
        step = nn.remat(step, prevent_cse=not scan)
    if scan:
        scanned = nn.scan(
            step, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
            length=depth,
        )  # fmt: skip
        return scanned(make(name=f"{name}s"), carry, inputs)
    outputs = []
    for i in range(depth):
        own = None if inputs is None else inputs[i]
        carry, output = step(make(name=f"{name}_{i}"), carry, own)
        outputs.append(output)
    return carry, outputs


def stack_blocks(params: Params) -> Params:
    """Parameters for `scan_blocks`: all of block_0, block_1, ... as blocks, by leading axis.

    Args:
      params: of a network without `scan_blocks`.

    Returns:
      Those of the same network with it.
    """
    stacked, groups = {}, {}
    for name, value in params.items():
        match = re.fullmatch(r"(.*block)_(\d+)", name)
        if match:
            groups.setdefault(f"{match[1]}s", {})[int(match[2])] = value
        else:
            stacked[name] = value
    for name, blocks in groups.items():
        parts = [blocks[i] for i in range(len(blocks))]
        stacked[name] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    return stacked


def unstack_blocks(params: Params) -> Params:
    """The inverse of `stack_blocks`.

    Args:
      params: of a network with `scan_blocks`.

    Returns:
      Those of the same network without it.
    """
    apart = {}
    for name, value in params.items():
        if not re.fullmatch(r".*blocks", name):
            apart[name] = value
            continue
        for i in range(jax.tree.leaves(value)[0].shape[0]):
            apart[f"{name[:-1]}_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], value)
    return apart
