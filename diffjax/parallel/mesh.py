"""Meshes of devices with axes data, fsdp and tensor, and steps that are compiled for them.

The batch is cut along data and fsdp, and the state by the rule of `diffjax.sharding`. The
parameters are put together along fsdp for a gradient, those of scanned blocks within the loop
(`sharding.gathered`); the gradient is cut again after it. XLA inserts the communication.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import numpy as np
from jax import lax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffjax.errors import InputError
from diffjax.models.stacking import is_run
from diffjax.sharding import AXES, spec, without_fsdp
from diffjax.training import Gradient, accumulate_gradients
from diffjax.training.state import NOTHING
from diffjax.types import PRNGKeyArray, PyTree


def sizes(text: str, devices: int) -> tuple[int, ...]:
    """Sizes of the axes from text such as "data=4,fsdp=2".

    Args:
      text: sizes by name; data, or an axis of size -1, takes what is left; others are 1.
      devices: their product.

    Returns:
      The sizes of data, fsdp and tensor.

    Raises:
      InputError: another name, a size that is no number, or a product that is not `devices`.
    """
    given = {}
    for part in filter(None, text.split(",")):
        name, _, size = part.partition("=")
        if name not in AXES or not size.removeprefix("-").isdigit() or int(size) < -1:
            raise InputError(
                f"--mesh is sizes of data, fsdp and tensor, such as data=4,fsdp=2; got {part!r}."
            )
        given[name] = int(size)
    rest = {"data": 1 if -1 in given.values() else -1, "fsdp": 1, "tensor": 1}
    given = rest | given
    known = math.prod(size for size in given.values() if size != -1)
    if known and devices % known == 0:
        given = {name: devices // known if size == -1 else size for name, size in given.items()}
    if math.prod(given.values()) != devices:
        raise InputError(
            f"the sizes of --mesh must multiply to the {devices} devices there are; got {text!r}."
        )
    return tuple(given[name] for name in AXES)


def make_mesh(text: str = "", devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes data, fsdp and tensor.

    Args:
      text: sizes, see `sizes`; empty for all devices along data.
      devices: default all of this program, other processes' included.

    Returns:
      The mesh.

    Raises:
      InputError: sizes that do not fit the devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = sizes(text, len(devices))
    grid = create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """`spec` of every leaf, as shardings: parameters, optimizer and EMA alike."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, spec(leaf.shape, mesh)), tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """A batch cut along data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def row_shards(mesh: Mesh) -> int:
    """How many parts a batch is cut into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def init_sharded(init: Callable[..., PyTree], mesh: Mesh, *args: PyTree) -> PyTree:
    """init(*args) computed where its parts belong: no device ever holds the whole.

    Args:
      init: pure function of the arguments.
      mesh: from `make_mesh`.
      *args: such as a key.

    Returns:
      Its result, sharded by the rule.
    """
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract(init, mesh, *args))
    return jax.jit(init, out_shardings=placed)(*args)


def abstract(init: Callable[..., PyTree], mesh: Mesh, *args: PyTree) -> PyTree:
    """Shapes, types and shardings of init(*args), without computing it."""
    return placed_like(jax.eval_shape(init, *args), mesh)


def placed_like(like: PyTree, mesh: Mesh) -> PyTree:
    """Shapes and types with the shardings of the rule."""
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(place, like, shardings(like, mesh))


def fsdp_gradient(gradient: Gradient, number: int, mesh: Mesh) -> Gradient:
    """Microbatched gradient under FSDP: ZeRO-3, Rajbhandari et al. 2020.

    All-gather parameters, shard the batch, reduce-scatter gradients. Left alone, XLA may keep
    the parameters sharded and send activations instead, which is more wherever an example's
    are larger than its share of the parameters. Scanned blocks gather their own.

    Args:
      gradient: of one microbatch.
      number: of microbatches.
      mesh: from `make_mesh`.

    Returns:
      The gradient function of the whole batch; its gradients are sharded as the parameters are.
    """

    def joined(path, array):
        if any(is_run(str(getattr(key, "key", ""))) for key in path):
            return array
        whole = NamedSharding(mesh, without_fsdp(spec(array.shape, mesh)))
        return lax.with_sharding_constraint(array, whole)

    def constrained(params, key, batch, context):
        cut = shardings(params, mesh)
        batch = lax.with_sharding_constraint(batch, rows(mesh))
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            params = jax.tree.map_with_path(joined, params)
            value, aux, grads, context = gradient(params, key, batch, context)
        return value, aux, lax.with_sharding_constraint(grads, cut), context

    return accumulate_gradients(constrained, number)


def jit_step(step: Callable, state: PyTree, mesh: Mesh, frozen: PyTree = NOTHING) -> Callable:
    """A training step compiled for the mesh, with the state donated.

    Args:
      step: from `training.make_train_step`.
      state: arrays or shapes of the state.
      mesh: from `make_mesh`.
      frozen: arrays or shapes of the frozen parameters, sharded by the same rule.

    Returns:
      The jitted step(state, key, batch, frozen).
    """
    state, frozen, whole = shardings(state, mesh), shardings(dict(frozen), mesh), replicated(mesh)
    return jax.jit(
        lambda state, key, batch, frozen: step(state, key, batch, frozen),
        in_shardings=(state, whole, rows(mesh), frozen),
        out_shardings=(state, whole),
        donate_argnums=0,
    )


def jit_train_step(
    make_step: Callable,
    state: PyTree,
    mesh: Mesh,
    batch_size: int,
    accumulate: int,
    frozen: PyTree = NOTHING,
) -> tuple[Callable, Callable]:
    """The step of `--parallel jit`, and what puts its batches on the devices.

    Args:
      make_step: `training.make_train_step` with its loss and optimizer.
      state: arrays or shapes of the state.
      mesh: from `make_mesh`.
      batch_size: examples per step.
      accumulate: microbatches of a batch.
      frozen: arrays or shapes of the frozen parameters.

    Returns:
      (step(state, key, batch, frozen), batches -> batches on the devices).

    Raises:
      InputError: the batch does not divide over the mesh.
    """
    check_batch(batch_size, accumulate, mesh)
    step = make_step(accumulate=accumulate, divide=partial(fsdp_gradient, mesh=mesh))
    return jit_step(step, state, mesh, frozen), partial(to_global_arrays, mesh=mesh)


def keys(seed: int, number: int, mesh: Mesh) -> tuple[PRNGKeyArray, ...]:
    """A seed's key split into so many, on every device of the mesh."""

    def split():
        return tuple(jax.random.split(jax.random.key(seed), number))

    return jax.jit(split, out_shardings=replicated(mesh))()


def share_of_batch(mesh: Mesh) -> tuple[int, int]:
    """Which share of each batch this process reads, and how many shares there are.

    Processes that differ only along the tensor axis read the same share.
    """
    process_of = np.vectorize(lambda device: device.process_index)
    return shares(process_of(mesh.devices.reshape(row_shards(mesh), -1)))[jax.process_index()]


def shares(processes: np.ndarray) -> dict[int, tuple[int, int]]:
    """The share of each process: (its index, number of shares).

    Args:
      processes: (rows, tensor) the process that holds each device of the mesh.
    """
    held = {p: tuple(np.flatnonzero((processes == p).any(axis=1))) for p in np.unique(processes)}
    distinct = sorted(set(held.values()))
    return {int(p): (distinct.index(rows), len(distinct)) for p, rows in held.items()}


def to_global_arrays(batches: Iterator[PyTree], mesh: Mesh) -> Iterator[PyTree]:
    """Batches on the devices, put together from what each process read of them.

    Args:
      batches: this process's share of every batch, see `share_of_batch`.
      mesh: from `make_mesh`.

    Yields:
      Global arrays, cut along the batch.
    """
    for batch in batches:
        yield jax.make_array_from_process_local_data(rows(mesh), jax.tree.map(np.asarray, batch))


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Refuse a batch that does not divide over the devices.

    Raises:
      InputError: it does not; says what would.
    """
    parts = row_shards(mesh)
    if batch_size % (parts * accumulate):
        raise InputError(
            f"the batch size must be a multiple of {parts * accumulate} (data x fsdp = {parts}, "
            f"accumulate = {accumulate}); got {batch_size}. Give another --batch-size or --mesh."
        )
