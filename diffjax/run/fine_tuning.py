"""Fine-tuning of another run: its experiment, with a LoRA in place of its parameters."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import jax
import numpy as np

from diffjax import data
from diffjax.errors import InputError
from diffjax.experiment import Experiment
from diffjax.lora import lora_plus
from diffjax.recipe.lora import LowRank, lora_model
from diffjax.recipe.training import Training
from diffjax.run.state import training_loss
from diffjax.run.weights import from_run
from diffjax.run.workdir import load_experiment
from diffjax.training.state import loss_gradient, scan_microbatches
from diffjax.types import Params


def with_lora(
    workdir: str | Path,
    given: LowRank,
    train: Training,
    source: Callable[[], data.Source] | None = None,
    batches: int = 8,
) -> Experiment:
    """The experiment of a workdir, of which a LoRA is trained with the loss that it was.

    Args:
      workdir: of the base.
      given: from `recipe.low_rank`.
      train: from `recipe.cosine_adam` and the like.
      source: of other data, which is not augmented; None is the base's own, which is as there.
      batches: that LoRA-GA takes the gradient of.

    Returns:
      The experiment; of LoRA-GA its first batches stand in `frozen`.

    Raises:
      InputError: it is no workdir, or a LoRA's.
    """
    base, trained = load_experiment(workdir), from_run(workdir)
    if "base" in base.model.frozen:
        raise InputError(f"{workdir} has a frozen base itself; give a run of a whole network.")
    model, merged = lora_model(base.model, trained.load, given)
    own = {} if source is None else {"source": source, "augment": ()}
    found = base._replace(**own, **train._asdict())

    def loss(frozen):
        of_base = base.loss(frozen)
        return lambda params, *args, **context: of_base(merged(params, frozen), *args, **context)

    optimizer = lora_plus(train.optimizer, given.b_rate) if given.b_rate != 1 else train.optimizer
    changed = found._replace(model=model, loss=loss, optimizer=optimizer)
    if given.method.start is None:
        return changed
    first = {"first_batches": lambda: first_batches(found, batches)}

    def start(params, frozen):
        gradient = mean_gradient(found, frozen["base"], frozen)
        return given.method.start(gradient, given.which, given.rank), {}

    return changed._replace(frozen={**base.frozen, **first}, start=start)


def first_batches(experiment: Experiment, count: int) -> dict[str, np.ndarray]:
    """The first batches of an experiment, stacked: (count, B, ...)."""
    e = experiment
    source = data.load(e.source)
    read = data.batches(source, e.batch_size, e.seed, augment=e.augment, workers=0)
    found = [data.arrays_of(batch) for batch in islice(read, count)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


def mean_gradient(experiment: Experiment, params: Params, frozen: dict) -> Params:
    """The mean gradient of an experiment's loss over `frozen["first_batches"]`."""
    gradient = loss_gradient(training_loss(experiment), frozen)
    stacked = frozen["first_batches"]
    keys = jax.random.split(jax.random.key(experiment.seed), len(jax.tree.leaves(stacked)[0]))
    return scan_microbatches(gradient, params, keys, stacked, experiment.context or {})[2]
