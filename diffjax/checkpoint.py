"""Checkpoints with Orbax, checked and exact.

A folder per step. Beside the state each holds a checksum of every leaf, because storage
can flip a byte without an error; restoring names what is damaged and walks back to the
newest step that is whole. A state sharded over many devices and processes is saved by all
of them together, and restored on any other number.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax.errors import InputError, sentence
from diffjax.types import PyTree


class Restored(NamedTuple):
    """What was restored: its step, the state, and a sentence for each damaged newer step."""

    step: int
    state: PyTree
    damaged: list[str]


class NotSaved(RuntimeError):
    """A checkpoint could not be written."""


def checksums(state: PyTree) -> dict[str, int]:
    """A checksum of every leaf, by its path in the tree; the same however it is sharded.

    It is the sum, modulo 2^64, of each element's bits as an integer times an odd number that
    depends on the element's place. Changing one element always changes it, and the sums of
    the shards add up, so that no process needs the others' data.
    """
    sums = np.array([_sum_of_shards(leaf) for leaf in jax.tree.leaves(state)], np.uint64)
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import process_allgather

        halves = process_allgather(sums.view(np.uint32))  # 64 bits do not pass through JAX
        sums = np.ascontiguousarray(halves).view(np.uint64).sum(axis=0, dtype=np.uint64)
    return {name: int(s) for name, s in zip(_names(state), sums, strict=True)}


def _names(state: PyTree) -> list[str]:
    """The path of every leaf in the tree."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]


def _sum_of_shards(leaf: Any) -> int:
    """The part of a leaf's checksum that this process holds the first copy of."""
    if not isinstance(leaf, jax.Array):
        return _weighted_sum(np.asarray(leaf), np.shape(leaf), ())
    shards = (s for s in leaf.addressable_shards if s.replica_id == 0)
    return sum(_weighted_sum(np.asarray(s.data), leaf.shape, s.index) for s in shards) % 2**64


def _weighted_sum(a: np.ndarray, shape: tuple[int, ...], index: tuple[slice, ...]) -> int:
    """Sum of bits times odd weights over the part `index` of an array of the given shape."""
    place = np.zeros((1,) * len(shape), np.uint64)
    for axis, size in enumerate(shape):
        part = index[axis] if axis < len(index) else slice(None)
        along = np.arange(*part.indices(size), dtype=np.uint64)
        place = place * np.uint64(size) + along.reshape(-1, *(1,) * (len(shape) - axis - 1))
    bits = np.ascontiguousarray(a).reshape(-1).view(f"u{a.dtype.itemsize}").astype(np.uint64)
    weights = place.reshape(-1) * np.uint64(0x9E3779B97F4A7C15) << np.uint64(1) | np.uint64(1)
    return int((bits * weights).sum(dtype=np.uint64))


def manager(folder: str | Path, keep: int | None = 3) -> Any:
    """An Orbax manager of the folder; make one per run and close it at the end.

    Args:
      folder: where the step folders are, made if missing.
      keep: how many of the newest to keep; None keeps all.

    Returns:
      An `orbax.checkpoint.CheckpointManager`, which saves in the background.
    """
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(Path(folder).resolve(), options=options)


def reader(folder: str | Path) -> Any:
    """An Orbax manager that only reads, for use beside a run that may still be writing."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(create=False)
    return ocp.CheckpointManager(Path(folder).resolve(), options=options)


def save(manager: Any, step: int, state: PyTree) -> None:
    """Save the state as `step`; returns once it is copied off the devices.

    Args:
      manager: from `manager`; its `wait_until_finished` blocks until the files are whole.
      step: the folder's name. A step already saved is left as it is.
      state: pytree of arrays.

    Raises:
      NotSaved: this save or the one before it failed.
    """
    import orbax.checkpoint as ocp

    if step in manager.all_steps():
        return
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(state), checksums=ocp.args.JsonSave(checksums(state))
    )
    try:
        manager.save(step, args=args)
    except jax.errors.JaxRuntimeError:  # a process that takes part is gone
        raise
    except Exception as error:  # of this save, or of the one before in the background
        raise NotSaved(_not_saved(manager, error)) from error


def finish(manager: Any) -> None:
    """Wait until the last save is whole on the disk.

    Raises:
      NotSaved: it could not be written.
    """
    try:
        manager.wait_until_finished()
    except jax.errors.JaxRuntimeError:
        raise
    except Exception as error:
        raise NotSaved(_not_saved(manager, error)) from error


def _not_saved(manager: Any, error: Exception) -> str:
    return (
        f"a checkpoint could not be written to {manager.directory} ({sentence(error)[:200]}); "
        "make room there, then the same command resumes from the last one that is whole"
    )


def _restore_step(manager: Any, step: int, like: PyTree) -> PyTree:
    """One step, checked; any exception or a ValueError that names the damaged leaves.

    Every process raises or none does: which step to go on from is one decision.
    """
    folder, got, problem = Path(manager.directory) / str(step), None, None
    try:
        got = _read(folder, like)
    except Exception as error:  # Orbax raises bare Exceptions for truncated files
        problem = error
    if not _everywhere(problem is None):
        raise problem or ValueError("another process could not read its part")
    state, sums = got
    found = checksums(state)
    wrong = [name for name, value in sums.items() if found.get(name) != value]
    if wrong or found.keys() != sums.keys():
        raise ValueError(f"checksum mismatch in {', '.join(wrong[:3]) or 'the list of leaves'}")
    return state


def _read(folder: Path, like: PyTree) -> tuple[PyTree, dict[str, int]]:
    """This process's part of a step and the checksums of the whole, waiting for no other."""
    import orbax.checkpoint as ocp

    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(me, {me}, barrier_sync_key_prefix=f"process_{me}")

    def item(name, handler, args):
        reading = ocp.Checkpointer(handler, multiprocessing_options=alone)
        with contextlib.closing(reading), loops_that_end():
            return reading.restore(folder / name, args=args)

    sums = item("checksums", ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())
    _check_names(folder, set(sums), set(_names(like)))
    return item("state", ocp.StandardCheckpointHandler(), ocp.args.StandardRestore(like)), sums


class _EndingLoop(asyncio.SelectorEventLoop):
    """An event loop that ends with the last of its tasks, not with the one it is run for."""

    def run_until_complete(self, future: Any) -> Any:
        try:
            return super().run_until_complete(future)
        finally:
            super().run_until_complete(self._end(asyncio.all_tasks(self)))

    async def _end(self, tasks: set[asyncio.Task]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def loops_that_end() -> Iterator[None]:
    """Within it, reads and writes that fail leave no other behind, in any thread.

    Orbax gives up its event loop at the first of many that fails, and each of the others would
    print a traceback whenever it is collected: thousands of lines for one sentence. It is for
    a process of our own: the event loops of others would end with the last of their tasks too.
    """
    usual = asyncio.new_event_loop
    asyncio.new_event_loop = asyncio.events.new_event_loop = _EndingLoop
    try:
        yield
    finally:
        asyncio.new_event_loop = asyncio.events.new_event_loop = usual


def _check_names(folder: Path, saved: set[str], wanted: set[str]) -> None:
    """Refuse a state of another tree, by a sentence that tells it from damage."""
    if saved != wanted:
        example = min(saved ^ wanted)
        where = "the checkpoint" if example in saved else "this program"
        raise InputError(
            f"{folder} holds the state of another network: {len(saved ^ wanted)} leaves differ in "
            f"name, such as {example}, which only {where} has; it was saved by another version or "
            "under another config: use that one, or train anew in another workdir."
        )


def _everywhere(fine: bool) -> bool:
    """Whether it is so for every process."""
    if jax.process_count() == 1:
        return fine
    from jax.experimental.multihost_utils import process_allgather

    return bool(process_allgather(np.asarray(fine)).all())


def restore(manager: Any, like: PyTree, step: int | None = None) -> Restored | None:
    """The newest intact step, walking back over damaged ones; or one step and no other.

    Args:
      manager: from `manager`.
      like: the tree to restore into, as arrays or `jax.ShapeDtypeStruct` (with shardings
        to place the leaves on devices other than the default).
      step: a step that must be it.

    Returns:
      A `Restored`, or None where nothing has been saved.

    Raises:
      InputError: there are steps but none is intact, or not the one asked for, or they hold
        another tree; says why.
    """
    like = jax.tree.map(_abstract, like)
    saved, damaged, problem = sorted(manager.all_steps(), reverse=True), [], None
    if step is not None and step not in saved:
        raise InputError(
            f"there is no checkpoint {step} in {manager.directory}; there are {saved}."
        )
    candidates = saved if step is None else [step]
    for candidate in candidates:
        try:
            return Restored(candidate, _restore_step(manager, candidate, like), damaged)
        except Exception as error:
            problem = problem or error
            damaged.append(f"checkpoint {candidate} is damaged ({sentence(error)[:200]})")
    if isinstance(problem, InputError):
        raise problem
    if damaged:
        raise InputError(
            f"no intact checkpoint in {manager.directory}: {damaged[0]}; restore the folder "
            "from a backup, or start again in a new workdir."
        )
    return None


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, type and placement; the default device where none is said."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
