"""Weights of a run or of a published folder: to sample, to start from, or to keep frozen."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffjax import checkpoint, parallel
from diffjax.errors import InputError
from diffjax.experiment import Experiment, Frozen, Loaders, Model, check_same_tree
from diffjax.run import executables
from diffjax.run.workdir import load_experiment, other_network, read_record
from diffjax.training import TrainState
from diffjax.types import Params, PyTree


class Trained(NamedTuple):
    """A model with its weights.

    Attributes:
      model: all that sampling needs.
      load: () -> its parameters, read once; a value of `frozen`.
    """

    model: Model
    load: Callable[[], Params]


class Restored(NamedTuple):
    """Averaged parameters of a run: where they are from, and what is damaged beside them."""

    params: Params
    step: int
    damaged: list[str]


def restore_average(
    workdir: Path, experiment: Experiment, mesh: Mesh, step: int | None = None
) -> Restored:
    """The first average of a run's parameters, on the mesh.

    Args:
      workdir: of train.py.
      experiment: from `load_experiment`.
      mesh: from `parallel.make_mesh`.
      step: of the checkpoint; None is the newest that is intact.

    Returns:
      The parameters.

    Raises:
      InputError: no checkpoint, none that is intact, or one that is not finite.
    """
    folder = workdir / "checkpoints"
    nothing = InputError(f"{workdir} has no checkpoints yet; train with python train.py.")
    if not folder.is_dir():
        raise nothing
    kept = executables.of_workdir(workdir, experiment.model)
    params = executables.abstract(kept, experiment.model.init, mesh)
    like = {"averages": dict.fromkeys(experiment.averages, params)}
    manager = checkpoint.reader(folder)
    restored = checkpoint.restore_fields(manager, like, step)
    manager.close()
    if restored is None:
        raise nothing
    params = next(iter(restored.state["averages"].values()))
    check_finite(params, f"checkpoint {restored.step} of {workdir}")
    return Restored(params, restored.step, restored.damaged)


def check_finite(params: Params, what: str) -> None:
    """Refuse parameters that hold NaN or infinity.

    Raises:
      InputError: names the first such array.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        parted = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        finite = jnp.isfinite(leaf) if parted else np.isfinite(np.asarray(leaf))  # or compile
        if not finite.all():
            raise InputError(
                f"{what} holds numbers that are not finite, in {jax.tree_util.keystr(path)}; "
                "use an earlier checkpoint, or other weights."
            )


def from_run(workdir: str | Path, step: int | None = None) -> Trained:
    """The model of a workdir, to be a frozen network of another run.

    Args:
      workdir: of train.py.
      step: of the checkpoint; None is the newest that is intact.

    Returns:
      The model, and how its averaged parameters are had.

    Raises:
      InputError: it is no workdir, or when loaded, it has no intact checkpoint.
    """
    experiment = load_experiment(workdir)

    load = functools.cache(lambda: whole_average(Path(workdir), experiment, step))
    return Trained(experiment.model, load)


def whole_average(workdir: Path, experiment: Experiment, step: int | None = None) -> Params:
    """The averaged parameters as NumPy arrays, whole in every process.

    All processes read together: a checkpoint is restored over the devices of all of them.
    """
    mesh = parallel.make_mesh()
    params = restore_average(workdir, experiment, mesh, step).params
    params = jax.jit(lambda tree: tree, out_shardings=parallel.replicated(mesh))(params)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), params)


def from_pretrained(folder: str | Path) -> Trained:
    """The model of a published folder, likewise; see `pretrained.model`."""
    from diffjax.pretrained.model import open_published

    model, leaves = open_published(folder)
    return Trained(model, lambda: leaves)


def trained(path: str | Path) -> Trained:
    """The model of a workdir or of a published folder.

    Raises:
      InputError: it is neither.
    """
    published = Path(path).is_dir() and not (Path(path) / "checkpoints").is_dir()
    return (from_pretrained if published else from_run)(path)


def starting_weights(path: str | Path) -> Params:
    """Parameters to start training from: of a workdir, or of a published folder.

    Raises:
      InputError: it is neither.
    """
    return trained(path).load()


def with_weights(state: TrainState, params: Params, what: str) -> TrainState:
    """A new state that starts from given parameters, its averages too.

    Args:
      state: at step 0, on its devices.
      params: of the same network, anywhere.
      what: they are from, for the message.

    Returns:
      The state.

    Raises:
      InputError: they are of another network.
    """
    check_same_tree(params, state.params, f"the weights of {what}")

    def place(like):
        return jax.tree.map(
            lambda a, b: jax.device_put(np.asarray(a).astype(b.dtype), b.sharding), params, like
        )

    averages = {name: place(average) for name, average in state.averages.items()}
    return state.replace(params=place(state.params), averages=averages)


def fingerprint(params: PyTree) -> str:
    """A short hash of every array's path, shape and bits."""
    sums = checkpoint.checksums(params)
    shapes = [tuple(np.shape(leaf)) for leaf in jax.tree.leaves(params)]
    return hashlib.sha256(json.dumps([sums, shapes]).encode()).hexdigest()[:16]


def as_trained(workdir: Path, loaders: Loaders) -> Loaders:
    """Loaders that refuse other frozen networks than a workdir was trained with.

    Args:
      workdir: whose config.json has their fingerprints.
      loaders: name -> () -> parameters.

    Returns:
      Loaders that raise InputError for parameters of another fingerprint.
    """
    kept = read_record(workdir)["fingerprints"]

    def checked(name, load):
        params = load()
        if name in kept and fingerprint(params) != kept[name]:
            raise other_network(name, workdir, fingerprint(params), kept[name])
        return params

    return {name: functools.partial(checked, name, load) for name, load in loaders.items()}


def load_frozen(loaders: Loaders, mesh: Mesh) -> Frozen:
    """Read frozen networks, and spread them over the mesh by the one rule.

    Args:
      loaders: name -> () -> parameters.
      mesh: from `parallel.make_mesh`.

    Returns:
      Name -> parameters.

    Raises:
      InputError: one cannot be read, or is not finite.
    """
    found = {}
    for name, load in loaders.items():
        found[name] = placed(load(), mesh)
        check_finite(found[name], f"the frozen network {name!r}")
    return found


def placed(params: Params, mesh: Mesh) -> Params:
    """Parameters on the mesh by the one rule, leaf by leaf.

    Args:
      params: arrays, or leaves that are read only here, such as `pretrained.naming.Leaf`: then
        no two copies of them all exist.
      mesh: from `make_mesh`.
    """

    def place(leaf, sharding):
        leaf = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(place, params, parallel.shardings(params, mesh))
