"""Repeated blocks: one after another, or as one `nn.scan` over stacked parameters."""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.sharding import gathered
from diffjax.types import Array, Cond, Params, PyTree

RUN = re.compile(r"(.*\D)(\d+)_to_(\d+)")


@jax.custom_jvp
def apart(h: Array) -> Array:
    """h; on a CPU its gradient is an array of its own, which no other operation computes again.

    XLA's CPU compiler writes sums into each operation that reads them. The gradient of a residual
    stream is a sum over all later blocks: every operation of block i that reads it would add up
    what those blocks gave, so that a backward pass grew with the square of the depth, and its
    compilation with it. Nothing is written into a loop; the compiler ignores a barrier there.

    Args:
      h: what a block is given, of any shape.

    Returns:
      h itself; its derivative is the identity.
    """
    return h


@apart.defjvp
def _apart_derivative(primals, tangents):
    (h,), (dh,) = primals, tangents
    return h, jax.lax.platform_dependent(dh, cpu=_through_a_loop, default=lambda dh: dh)


def _through_a_loop(x):
    """x as what a loop carries; one of a single turn would be taken away."""
    return jax.lax.scan(lambda _, __: (x, None), jnp.zeros_like(x), length=2)[0]


def repeat(
    make: Callable[..., nn.Module],
    step: Callable[[nn.Module, Any, Any], tuple[Any, Any]],
    carry: Any,
    depth: int,
    *,
    inputs: Any = None,
    name: str = "block_",
    first: int = 0,
    remat: bool = False,
    scan: bool = False,
) -> tuple[Any, Any]:
    """`depth` blocks of one shape, each on the output of the one before.

    To be called in a compact method. The parameters are those of {name}0, {name}1, ... or
    with `scan` those of {name}0_to_{depth - 1}, with a leading axis: `stack_blocks` and
    `unstack_blocks` turn one into the other.

    Args:
      make: name -> block.
      step: (block, carry, input) -> (carry, output).
      carry: what the first block is given.
      depth: number of blocks.
      inputs: one per block, as a list or a leading axis; None where there is none.
      name: of one block, without its number.
      first: number of the first block.
      remat: recompute a block in the backward pass instead of keeping what is inside it.
      scan: compile one block for all.

    Returns:
      (the last carry, the outputs as `inputs` would take them).
    """
    if remat:
        step = nn.remat(gathered(step, (depth,)) if scan else step, prevent_cse=not scan)
    if scan:
        scanned = nn.scan(
            step, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
            length=depth,
        )  # fmt: skip
        scanned = scanned if remat else gathered(scanned)
        return scanned(make(name=f"{name}{first}_to_{first + depth - 1}"), carry, inputs)
    outputs = []
    for i in range(depth):
        own = None if inputs is None else inputs[i]
        carry, output = step(make(name=f"{name}{first + i}"), jax.tree.map(apart, carry), own)
        outputs.append(output)
    return carry, outputs


def repeat_runs(
    make: Callable[..., nn.Module],
    step: Callable[[nn.Module, Any, Any], tuple[Any, Any]],
    carry: Any,
    kinds: Sequence[Hashable],
    *,
    inputs: Sequence[Any] | None = None,
    start: int = 0,
    scan: bool = False,
    **options: Any,
) -> tuple[Any, list[Any]]:
    """`repeat` of blocks of several shapes: with `scan`, each run of neighbours of one kind.

    Args:
      make: as in `repeat`, as are step and carry.
      kinds: one per block, equal where the shapes of all that goes in and out are.
      inputs: one per block, or None.
      start: number of the first block.
      scan: compile one block for each run; a run of one block keeps its name.
      **options: `name` and `remat` of `repeat`.

    Returns:
      (the last carry, the outputs).
    """
    outputs, first = [], 0
    for length in (len(list(run)) for _, run in groupby(kinds)) if scan else [len(kinds)]:
        own = None if inputs is None else inputs[first : first + length]
        run = partial(repeat, make, step, depth=length, first=start + first, **options)
        if scan and length > 1:
            own = own and jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)
            carry, stacked = run(carry=carry, inputs=own, scan=True)
            more = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(length)]
        else:
            carry, more = run(carry=carry, inputs=own)
        outputs += more
        first += length
    return carry, outputs


def spread(
    cond: Cond, like: Array, depth: int, blocks: int | None = None, scan: bool = False
) -> Any:
    """What a ControlNet adds after each block of a transformer, as `inputs` of `repeat`.

    Block i of `depth` reads residual floor(i n / depth) of n: as in Stable Diffusion 3.

    Args:
      cond: `residuals`, a sequence of arrays of the shape of `like`; without it nothing is added.
      like: tokens (B, T, D) as they leave a block.
      depth: number of blocks.
      blocks: of them, the first that read; None for all.
      scan: whether to stack them.

    Returns:
      A residual for each block, or None.

    Raises:
      InputError: none, or more than blocks, or of another shape.
    """
    residuals = (cond or {}).get("residuals")
    if residuals is None:
        return None
    n = len(residuals)
    wrong = [r.shape for r in residuals if r.shape != like.shape]
    if wrong or not 1 <= n <= depth:
        raise InputError(
            f"a transformer of {depth} blocks takes 1 to {depth} cond['residuals'] of the shape "
            f"{like.shape}; got {n}{f' of {wrong[0]}' if wrong else ''}. Is the ControlNet one for "
            "this network?"
        )
    each = [residuals[i * n // depth].astype(like.dtype) for i in range(blocks or depth)]
    return jnp.stack(each) if scan else each


def plus(h: Array, residual: Array | None) -> Array:
    """h, and a residual where there is one."""
    return h if residual is None else h + residual


def widths_in(x: Array, features: int, count: int) -> list[int]:
    """Channels that each of `count` blocks is given: x's, then what the one before gives."""
    return [x.shape[-1], *[features] * count][:count]


def is_run(name: str) -> bool:
    """Whether parameters of this name are those of several blocks, by leading axis."""
    return RUN.fullmatch(name) is not None


def stack_blocks(params: Params, like: PyTree) -> Params:
    """Parameters for `scan_blocks`: those of a run of equal blocks as one, by leading axis.

    Args:
      params: of a network without `scan_blocks`.
      like: the same network's with it, or their shapes:
        `jax.eval_shape(module.init, key, x, t)["params"]`.

    Returns:
      Parameters as `like` has them.
    """
    if not isinstance(like, Mapping):
        return params
    stacked = {}
    for name in like:
        match = RUN.fullmatch(name)
        if not match:
            stacked[name] = stack_blocks(params[name], like[name])
            continue
        parts = [params[f"{match[1]}{i}"] for i in range(int(match[2]), int(match[3]) + 1)]
        stacked[name] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    return stacked


def unstack_blocks(params: Params) -> Params:
    """The inverse of `stack_blocks`.

    Args:
      params: of a network with `scan_blocks`.

    Returns:
      Those of the same network without it.
    """
    if not isinstance(params, Mapping):
        return params
    apart = {}
    for name, value in params.items():
        match = RUN.fullmatch(name)
        if not match:
            apart[name] = unstack_blocks(value)
            continue
        for index, i in enumerate(range(int(match[2]), int(match[3]) + 1)):
            apart[f"{match[1]}{i}"] = jax.tree.map(lambda leaf, k=index: leaf[k], value)
    return apart
