"""Snapshots of power-function averages beside the checkpoints, and any EMA length from them.

Checkpoints are few and the newest; a snapshot of the averages alone is kept at every one.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffjax import checkpoint, parallel
from diffjax.errors import InputError
from diffjax.experiment import Experiment
from diffjax.run.weights import Restored, check_finite
from diffjax.training import TrainState
from diffjax.training.posthoc_ema import gamma_of, lengths_of, weights

FAR = 0.05
"""Misfit of a profile from which a rebuilt average is said to be a rough one."""


class Keeper(NamedTuple):
    """What saves a run's state.

    Attributes:
      save: (step, state) -> None, the checkpoint and the snapshot.
      finish: () -> None, waits until both are whole.
      close: () -> None.
    """

    save: Callable[[int, TrainState], None]
    finish: Callable[[], None]
    close: Callable[[], None]


def keeper(experiment: Experiment, workdir: Path, manager: Any, first: int) -> Keeper:
    """Saves checkpoints, and snapshots where the experiment has power-function averages.

    Args:
      experiment: whose averages they are.
      workdir: of train.py; snapshots later than `first` are dropped.
      manager: of the checkpoints.
      first: step that the run begins or goes on at.

    Returns:
      The `Keeper`.
    """
    names = list(lengths_of(experiment.averages))
    managers = [manager]
    if names:
        managers.append(checkpoint.manager(workdir / "snapshots", None))
        for step in [step for step in managers[1].all_steps() if step > first]:
            managers[1].delete(step)

    def save(step, state):
        checkpoint.save(manager, step, state)
        if names:
            checkpoint.save(managers[1], step, {name: state.averages[name] for name in names})

    def finish():
        for each in managers:
            checkpoint.finish(each)

    def close():
        for each in managers:
            each.close()

    return Keeper(save, finish, close)


def restore_length(
    workdir: Path, experiment: Experiment, mesh: Mesh, length: float, step: int | None = None
) -> Restored:
    """The average of a length that nobody kept, from the snapshots up to a step.

    Args:
      workdir: of train.py.
      experiment: from `load_experiment`.
      mesh: from `parallel.make_mesh`.
      length: sigma of `posthoc_ema.gamma_of`, such as 0.10.
      step: of a snapshot; None is the last.

    Returns:
      The parameters, and a sentence where they are a rough approximation.

    Raises:
      InputError: the run kept no such averages, there is no such snapshot or a damaged one, or
        no average has that length.
    """
    kept = lengths_of(experiment.averages)
    if not kept or not (workdir / "snapshots").is_dir():
        raise InputError(
            f"{workdir} has no snapshots of power-function averages, from which --ema is "
            "rebuilt; train with --ema-lengths 0.05 0.10."
        )
    manager = checkpoint.reader(workdir / "snapshots")
    steps = sorted(manager.all_steps())
    step = steps[-1] if step is None and steps else step
    if step not in steps:
        raise InputError(f"there is no snapshot {step} in {manager.directory}; there are {steps}.")
    steps = [s for s in steps if s <= step]
    at, gammas = (
        np.repeat(steps, len(kept)),
        np.tile([gamma_of(x) for x in kept.values()], len(steps)),
    )
    found = weights(at, gammas, step, gamma_of(length))
    params = parallel.abstract(experiment.model.init, mesh, jax.random.key(0))
    like = dict.fromkeys(kept, params)
    x, total = found.weights.reshape(len(steps), len(kept)), None
    for each, row in zip(steps, x, strict=True):
        part = checkpoint.restore(manager, like, each).state
        part = _weighted(part, dict(zip(kept, row.astype(np.float32), strict=True)))
        total = part if total is None else _sum(total, part)
    manager.close()
    check_finite(total, f"the average of length {length:g} of {workdir}")
    rough = (
        f"the average of length {length:g} is a rough one from {len(steps)} snapshots "
        f"({100 * found.misfit:.0f}% of its profile is missed); use a smaller --checkpoint-every"
    )
    return Restored(total, step, [rough] if found.misfit > FAR else [])


@jax.jit
def _weighted(averages, row):
    return jax.tree.map(
        lambda *a: sum(w * x for w, x in zip(row.values(), a, strict=True)), *averages.values()
    )


_sum = jax.jit(partial(jax.tree.map, jnp.add))
