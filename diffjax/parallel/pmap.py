"""Training with `jax.pmap`: a whole copy of the state on each device, gradients averaged.

What the older JAX libraries do, and a check on the sharded form: the same pure step, whose
gradient is the mean over the devices by `lax.pmean`.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh

from diffjax.errors import InputError
from diffjax.training import Gradient, scan_microbatches
from diffjax.training.state import NOTHING
from diffjax.types import PyTree

AXIS = "devices"


def pmap_gradient(gradient: Gradient, pieces: int) -> Gradient:
    """The gradient of a batch in so many pieces, an equal number on each device of a pmap.

    Each piece has the key that `training.accumulate_gradients` gives it, so many devices compute
    what one does.

    Args:
      gradient: of one piece.
      pieces: their number, a multiple of the devices.

    Returns:
      The gradient function; its batch is this device's pieces, stacked.
    """

    def share(params, key, batch, context):
        if jax.tree.leaves(context):
            raise InputError(
                "this loss carries a context from step to step, which --parallel pmap cannot "
                "average; use --parallel jit."
            )
        mine = pieces // lax.axis_size(AXIS)
        keys = jax.random.split(key, pieces) if pieces > 1 else key[None]
        keys = lax.dynamic_slice_in_dim(keys, lax.axis_index(AXIS) * mine, mine)
        *means, context = scan_microbatches(gradient, params, keys, batch, context)
        return *lax.pmean(means, AXIS), context

    return share


def pieces_for(batch_size: int, accumulate: int, devices: int) -> int:
    """The fewest pieces that are a multiple of both `accumulate` and the devices.

    Raises:
      InputError: they do not divide the batch.
    """
    pieces = math.lcm(accumulate, devices)
    if batch_size % pieces:
        raise InputError(
            f"--parallel pmap on {devices} devices with accumulate {accumulate} needs a batch "
            f"size that is a multiple of {pieces}; got {batch_size}."
        )
    return pieces


def pmap_step(step: Callable, devices: list[jax.Device] | None = None) -> Callable:
    """A training step mapped over local devices, with the state donated.

    Args:
      step: from `training.make_train_step` with `divide=pmap_gradient`.
      devices: default all of this process.

    Returns:
      step(state, key, batch, frozen), where a leaf of the batch is (devices, pieces, ...).
    """
    return jax.pmap(
        lambda state, key, batch, frozen: step(state, key, batch, frozen),
        axis_name=AXIS,
        in_axes=(None, None, 0, None),
        out_axes=None,
        devices=devices,
        donate_argnums=0,
    )


def stack_microbatches(batches: Iterator[PyTree], pieces: int, devices: int) -> Iterator[PyTree]:
    """Batches for `pmap_step`: piece i is every `pieces`-th example from i on.

    Args:
      batches: whole batches.
      pieces: of `pmap_gradient`.
      devices: their number, which divides the pieces.

    Yields:
      Leaves of shape (devices, pieces of a device, examples of a piece, ...).
    """

    def cut(a):
        stacked = np.asarray(a).reshape(-1, pieces, *a.shape[1:]).swapaxes(0, 1)
        return stacked.reshape(devices, pieces // devices, *stacked.shape[1:])

    for batch in batches:
        yield jax.tree.map(cut, batch)


def pmap_train_step(
    make_step: Callable,
    state: PyTree,
    mesh: Mesh,
    batch_size: int,
    accumulate: int,
    frozen: PyTree = NOTHING,
) -> tuple[Callable, Callable]:
    """The step of `--parallel pmap`, and what stacks its batches; see `mesh.jit_train_step`.

    Raises:
      InputError: a mesh with other axes than data, several processes, or a batch that does
        not divide.
    """
    devices = list(mesh.devices.flat)
    if len(devices) != mesh.shape["data"] or jax.process_count() > 1:
        raise InputError(
            "--parallel pmap copies the state to the devices of one process; leave --distributed, "
            "fsdp and tensor out, or use --parallel jit."
        )
    pieces = pieces_for(batch_size, accumulate, len(devices))
    step = make_step(accumulate=pieces, divide=pmap_gradient)
    return pmap_step(step, devices), partial(
        stack_microbatches, pieces=pieces, devices=len(devices)
    )
