"""Checkpoints with Orbax, checked and exact.

A folder per step. Beside the state each holds a checksum of every leaf, because storage
can flip a byte without an error; restoring names what is damaged and walks back to the
newest step that is whole. A state sharded over many devices and processes is saved by all
of them together, and restored on any other number.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax.checksums import add, as_before, from_words, parts, sums, to_words
from diffjax.errors import InputError, sentence
from diffjax.event_loops import loops_that_end
from diffjax.types import PyTree


class Restored(NamedTuple):
    """What was restored: its step, the state, and a sentence for each damaged newer step."""

    step: int
    state: PyTree
    damaged: list[str]


class NotSaved(RuntimeError):
    """A checkpoint could not be written."""


@functools.cache
def _checksums_args() -> Callable[..., Any]:
    """Orbax's argument that saves checksums: a function that computes this process's part."""
    import orbax.checkpoint as ocp

    class Handler(ocp.JsonCheckpointHandler):
        async def async_save(self, directory, args):
            async def write():  # in a thread of its own, while Orbax writes the state
                path = directory / f"process_{jax.process_index()}.json"
                path.write_text(json.dumps(args.compute()))

            return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name="checksums")]

    @ocp.args.register_with_handler(Handler, for_save=True, for_restore=True)
    @dataclasses.dataclass
    class Save(ocp.args.CheckpointArgs):
        compute: Callable[[], dict[str, int]]

    return Save


def _read_checksums(folder: Path) -> dict[str, int]:
    """The checksums of the whole, from the files of all processes; "metadata" is the one of old."""
    paths = [*folder.glob("process_*.json"), *folder.glob("metadata")]
    files = [json.loads(path.read_text()) for path in paths]
    if not files:
        raise FileNotFoundError(f"{folder} holds no checksums")
    return {name: add([file.get(name, 0) for file in files]) for name in files[0]}


def checksums(state: PyTree) -> dict[str, int]:
    """A checksum of every leaf, by its path in the tree; the same however it is sharded."""
    found = sums(parts(state))
    if jax.process_count() == 1:
        return found
    from jax.experimental.multihost_utils import process_allgather

    own = np.array([to_words(value) for value in found.values()], np.uint32)
    every = process_allgather(own)  # 64 bits do not pass through JAX
    values = [[from_words(words) for words in leaf] for leaf in every.swapaxes(0, 1)]
    return {name: add(leaf) for name, leaf in zip(found, values, strict=True)}


def _names(state: PyTree) -> set[str]:
    """The path of every leaf in the tree."""
    return {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)}


def manager(
    folder: str | Path, keep: int | None = 3, also: Callable[[int], bool] = lambda step: False
) -> Any:
    """An Orbax manager of the folder; make one per run and close it at the end.

    Args:
      folder: where the step folders are, made if missing.
      keep: how many of the newest to keep; None keeps all.
      also: says of a step, whenever an old one could go, whether it is kept beside the newest.

    Returns:
      An `orbax.checkpoint.CheckpointManager`, which saves in the background.
    """
    import orbax.checkpoint as ocp

    policies, newest = ocp.checkpoint_managers, ocp.checkpoint_managers.LatestN(keep)

    class Chosen(policies.PreservationPolicy):
        def should_preserve(self, checkpoints, *, context):
            kept = newest.should_preserve(checkpoints, context=context)
            return [k or also(c.step) for k, c in zip(kept, checkpoints, strict=True)]

    kinds = {"preservation_policy": Chosen(), "cleanup_tmp_directories": True}
    options = ocp.CheckpointManagerOptions(**kinds)
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
    later = functools.partial(sums, parts(state))
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(state), checksums=_checksums_args()(later)
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


def _restore_step(manager: Any, step: int, like: PyTree, read: Callable) -> PyTree:
    """One step, checked; any exception or a ValueError that names the damaged leaves.

    Every process raises or none does: which step to go on from is one decision.
    """
    folder, got, problem = Path(manager.directory) / str(step), None, None
    try:
        got = read(folder, like)
    except Exception as error:  # Orbax raises bare Exceptions for truncated files
        problem = error
    if not _everywhere(problem is None):
        raise problem or ValueError("another process could not read its part")
    state, saved = got
    found = checksums(state)
    wrong = [name for name, v in found.items() if saved[name] not in (v, as_before(v))]
    if wrong:
        raise ValueError(f"checksum mismatch in {', '.join(wrong[:3])}")
    return state


def _read(folder: Path, like: PyTree) -> tuple[PyTree, dict[str, int]]:
    """This process's part of a step and the checksums of the whole, waiting for no other."""
    import orbax.checkpoint as ocp

    saved = _read_checksums(folder / "checksums")
    _check_names(folder, set(saved), _names(like))
    args = ocp.args.StandardRestore(like)
    return _read_alone(folder, ocp.StandardCheckpointHandler, args), saved


def _read_fields(folder: Path, like: dict[str, PyTree]) -> tuple[PyTree, dict[str, int]]:
    """`_read` of some fields of a state alone, by name."""
    import orbax.checkpoint as ocp

    saved = {_of_a_key(name): sums for name, sums in _read_checksums(folder / "checksums").items()}
    wanted = _names(like)
    fields = tuple(f"[{name!r}]" for name in like)
    _check_names(folder, {name for name in saved if name.startswith(fields)}, wanted)
    how = ocp.checkpoint_utils.construct_restore_args(like)
    args = ocp.args.PyTreeRestore(like, restore_args=how, partial_restore=True)
    return _read_alone(folder, ocp.PyTreeCheckpointHandler, args), saved


def _of_a_key(name: str) -> str:
    """`.field['leaf']`, as a state's paths are written, as `['field']['leaf']`."""
    field, bracket, rest = name.removeprefix(".").partition("[")
    return f"[{field!r}]{bracket}{rest}" if name.startswith(".") else name


def _read_alone(folder: Path, handler: Callable, args: Any) -> PyTree:
    """What Orbax reads of a step, without waiting for other processes."""
    import orbax.checkpoint as ocp

    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(me, {me}, barrier_sync_key_prefix=f"process_{me}")
    reading = ocp.Checkpointer(handler(), multiprocessing_options=alone)
    with contextlib.closing(reading), loops_that_end():
        return reading.restore(folder / "state", args=args)


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
    return _newest_intact(manager, like, step, _read)


def restore_fields(
    manager: Any, like: dict[str, PyTree], step: int | None = None
) -> Restored | None:
    """`restore` of some fields of a state alone, such as its averages; the others are not read.

    Args:
      manager: from `manager` or `reader`.
      like: name of a field of the state -> its tree, as of `restore`.
      step: a step that must be it.

    Returns:
      A `Restored` whose state holds the fields by name, or None where nothing has been saved.

    Raises:
      InputError: as `restore`.
    """
    return _newest_intact(manager, like, step, _read_fields)


def _newest_intact(manager: Any, like: PyTree, step: int | None, read: Callable) -> Restored | None:
    """What `restore` gives, by a function that reads one step."""
    like = jax.tree.map(_abstract, like)
    saved, damaged, problem = sorted(manager.all_steps(), reverse=True), [], None
    if step is not None and step not in saved:
        raise InputError(
            f"there is no checkpoint {step} in {manager.directory}; there are {saved}."
        )
    candidates = saved if step is None else [step]
    for candidate in candidates:
        try:
            return Restored(candidate, _restore_step(manager, candidate, like, read), damaged)
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
