"""From an experiment to its initial state and its compiled training step."""

from collections.abc import Callable
from functools import partial

from jax.sharding import Mesh

from diffjax import conditioning
from diffjax.data import Source, check
from diffjax.errors import InputError
from diffjax.experiment import NOTHING, Experiment, Frozen
from diffjax.training import TrainState, init_state, make_train_step
from diffjax.types import LossFn, PRNGKeyArray


def initial_state(
    experiment: Experiment, key: PRNGKeyArray, frozen: Frozen = NOTHING
) -> TrainState:
    """The state at step 0, as a pure function of the key and of the frozen networks."""
    e = experiment
    params, context = e.start(e.model.init(key), frozen)
    return init_state(params, e.optimizer, {**(e.context or {}), **context}, e.averages)


def training_loss(experiment: Experiment) -> LossFn:
    """The experiment's loss as one of raw batches: codec and conditions are applied first.

    Args:
      experiment: whose `loss` is frozen -> a `LossFn` of encoded batches.

    Returns:
      loss(params, key, batch, frozen={}, **context).
    """
    model = experiment.model

    def loss(params, key, batch, frozen=None, **context):
        frozen = frozen or {}
        cond = conditioning.encode(model.conditions, frozen, batch) or {}
        encoded = {"x": model.codec.encode(frozen, batch["x"]), **cond}
        return experiment.loss(frozen)(params, key, encoded, **context)

    return loss


def compiled_step(
    experiment: Experiment, form: Callable, state: TrainState, mesh: Mesh, frozen: Frozen
) -> tuple[Callable, Callable]:
    """The training step of an experiment on a mesh, and what puts its batches there.

    Args:
      experiment: loss, optimizer, batch size and accumulation.
      form: `parallel.jit_train_step` or `parallel.pmap_train_step`.
      state: arrays or shapes of the state.
      mesh: of devices.
      frozen: arrays or shapes of the frozen parameters.

    Returns:
      (step(state, key, batch, frozen), batches -> batches on the devices).

    Raises:
      InputError: the batch does not divide over the mesh.
    """
    e = experiment
    make_step = partial(make_train_step, training_loss(e), e.optimizer, e.averages)
    return form(make_step, state, mesh, e.batch_size, e.accumulate, frozen)


def check_data(experiment: Experiment, source: Source) -> None:
    """Refuse data that the experiment cannot be trained on, by its first example and its labels.

    Raises:
      InputError: a shape that is not the experiment's, an array that a condition wants and the
        data lacks, or a label that it has no class for.
    """
    model = experiment.model
    wanted = conditioning.examples(model.conditions)
    missing = sorted(wanted.keys() - source.examples[0].keys() - {"label"})
    if missing:
        raise InputError(
            f"the experiment is conditional on {', '.join(missing)}, which the data lacks; it has "
            f"{', '.join(sorted(source.examples[0]))}. Give other data, or a config without it."
        )
    classes = sum(condition.classes for condition in model.conditions)
    check(source, experiment.data_shape or model.example.shape, classes, experiment.augment)
