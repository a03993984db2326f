"""What a configuration file gives, and how a run remembers its own.

A config is a Python file with `get_config(...) -> Experiment`; every keyword of it is a
flag of train.py. A workdir keeps a copy of the file and the values of the keywords, so
that sampling needs nothing else and a resumed run can tell that something changed.
"""

import ast
import fcntl
import importlib.util
import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import optax
from jax.sharding import Mesh

from diffjax.data.source import Source
from diffjax.errors import InputError, sentence
from diffjax.grids import trailing
from diffjax.samplers import ddim
from diffjax.training import TrainState, init_state, make_train_step
from diffjax.types import Array, Denoiser, LossFn, Params, PRNGKeyArray, Sampler, Schedule


class Sampling(NamedTuple):
    """How samples are drawn where nothing else is asked for.

    Attributes:
      sampler: a constructor of `diffjax.samplers`.
      grid: a function of `diffjax.grids`, (schedule, n) -> ts.
      steps: number of steps.
      guidance_scale: 1 is no guidance.
      options: keywords of the constructor.
    """

    sampler: Callable[..., Sampler] = ddim
    grid: Callable[..., Array] = trailing
    steps: int = 50
    guidance_scale: float = 1.0
    options: Mapping[str, Any] = MappingProxyType({})


class Experiment(NamedTuple):
    """A whole experiment: what is trained, on what, and how it is sampled.

    Attributes:
      source: () -> the data.
      init: key -> initial parameters.
      loss: the training loss, closed over the network.
      optimizer: an Optax transformation, with clipping and learning rate inside.
      denoiser: parameters -> denoiser for sampling, clipping included.
      schedule: the noise schedule, where sampling begins and ends.
      shape: of one sample.
      num_classes: number of labels; 0 is unconditional.
      guide: (denoiser, scale) -> guided denoiser; None where there is no guidance.
      context: initial context of the loss, see `LossFn`.
      steps: training steps.
      batch_size: examples per step.
      accumulate: pieces a batch is cut into for one gradient at a time.
      ema_decay: limit of the moving average of the parameters.
      flip: mirror half of the images left to right.
      seed: of the initial parameters, the data order and every draw in training.
      sampling: defaults of sampling.
    """

    source: Callable[[], Source]
    init: Callable[[PRNGKeyArray], Params]
    loss: LossFn
    optimizer: optax.GradientTransformation
    denoiser: Callable[[Params], Denoiser]
    schedule: Schedule
    shape: tuple[int, ...]
    num_classes: int = 0
    guide: Callable[[Denoiser, Array], Denoiser] | None = None
    context: dict[str, Any] | None = None
    steps: int = 1000
    batch_size: int = 64
    accumulate: int = 1
    ema_decay: float = 0.999
    flip: bool = False
    seed: int = 0
    sampling: Sampling = Sampling()


def initial_state(experiment: Experiment, key: PRNGKeyArray) -> TrainState:
    """The state at step 0, as a pure function of the key."""
    return init_state(experiment.init(key), experiment.optimizer, experiment.context)


def compiled_step(experiment: Experiment, form: Callable, state: TrainState, mesh: Mesh) -> tuple:
    """The training step of an experiment on a mesh, and what puts its batches there.

    Args:
      experiment: loss, optimizer, batch size and accumulation.
      form: `parallel.jit_form` or `parallel.pmap_form`.
      state: arrays or shapes of the state.
      mesh: of devices.

    Returns:
      (step(state, key, batch), batches -> batches on the devices).

    Raises:
      InputError: the batch does not divide over the mesh.
    """
    e = experiment
    make_step = partial(make_train_step, e.loss, e.optimizer, e.ema_decay)
    return form(make_step, state, mesh, e.batch_size, e.accumulate)


class Published(NamedTuple):
    """A network trained elsewhere: those fields of `Experiment` that sampling needs."""

    denoiser: Callable[[Params], Denoiser]
    schedule: Schedule
    shape: tuple[int, ...]
    sampling: Sampling
    num_classes: int = 0
    guide: Callable[[Denoiser, Array], Denoiser] | None = None


def load(path: str | Path) -> Callable[..., Experiment]:
    """The `get_config` of a configuration file.

    Args:
      path: a Python file.

    Returns:
      Its function `get_config`.

    Raises:
      InputError: no such file, not a Python file, an error in it, or no `get_config`.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise InputError(
            f"expected a configuration file such as configs/digits.py; {path} is not a Python file "
            "that exists."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} could not be loaded: {sentence(error)}") from error
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise InputError(f"{path} has no function get_config(...) that returns an Experiment.")
    return get_config


def build(get_config: Callable[..., Experiment], options: dict[str, Any]) -> Experiment:
    """Call `get_config`, and turn what can go wrong into a sentence.

    Args:
      get_config: from `load`.
      options: its keywords.

    Returns:
      The experiment.

    Raises:
      InputError: it failed, returned something else, or its numbers cannot train.
    """
    try:
        experiment = get_config(**options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"get_config failed: {sentence(error)}") from error
    if not isinstance(experiment, Experiment):
        raise InputError(f"get_config must return an Experiment; got {type(experiment).__name__}.")
    if experiment.steps < 1 or experiment.batch_size < 1:
        raise InputError(
            f"steps and batch size must be at least 1; got {experiment.steps} and "
            f"{experiment.batch_size}."
        )
    if experiment.accumulate < 1 or experiment.batch_size % experiment.accumulate:
        raise InputError(
            f"accumulate must divide the batch size {experiment.batch_size}; got "
            f"{experiment.accumulate}."
        )
    return experiment


def all_options(get_config: Callable[..., Experiment], given: dict[str, Any]) -> dict[str, Any]:
    """Every keyword of `get_config` with its value: given, or else its default."""
    parameters = inspect.signature(get_config).parameters
    return {name: given.get(name, p.default) for name, p in parameters.items()}


@contextmanager
def claim(workdir: Path):
    """Hold a workdir for one run; the lock goes with the process, however it ends.

    Args:
      workdir: made if it is missing.

    Raises:
      InputError: it cannot be written, or another run holds it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("w")
    except OSError as error:
        raise InputError(f"cannot write to the workdir {workdir}: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another run is writing to {workdir}; wait for it, or give another --workdir."
            ) from error
        yield


def remember(workdir: Path, path: str | Path, options: dict[str, Any]) -> None:
    """Write the configuration into the workdir, or refuse one that differs from it.

    Args:
      workdir: the run's folder.
      path: the configuration file.
      options: from `all_options`.

    Raises:
      InputError: the workdir holds another configuration; says what differs.
    """
    source = Path(path).read_text()
    options = json.loads(json.dumps(options))
    record = workdir / "config.json"
    if not record.exists():
        (workdir / "config.py").write_text(source)
        record.write_text(json.dumps({"config": str(path), "options": options}, indent=2) + "\n")
        return
    before = json.loads(record.read_text())["options"]
    differ = [
        f"{name} was {before.get(name, 'not there')}, now {options.get(name, 'not there')}"
        for name in sorted(before.keys() | options.keys())
        if before.get(name) != options.get(name)
    ]
    if _meaning(source) != _meaning((workdir / "config.py").read_text()):
        differ.append(f"the code of {path} is not that of {workdir / 'config.py'}")
    if differ:
        raise InputError(
            f"{workdir} holds a run with another configuration: {'; '.join(differ)}. Give the "
            "same flags to resume it, or another --workdir to start a new run."
        )


def recall(workdir: str | Path) -> Experiment:
    """The experiment of a workdir, from its own copy of the configuration.

    Raises:
      InputError: the folder is not one that train.py made.
    """
    workdir = Path(workdir)
    record = workdir / "config.json"
    if not record.is_file():
        raise InputError(
            f"{workdir} is not a workdir of train.py (it has no config.json); "
            "train one with `python train.py --workdir DIR`."
        )
    options = json.loads(record.read_text())["options"]
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return build(load(workdir / "config.py"), options)


def _meaning(source: str) -> str:
    """The code without comments, layout and the module's docstring."""
    tree = ast.parse(source)
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:]
    return ast.dump(tree)
