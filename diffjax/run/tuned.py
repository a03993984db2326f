"""Samplers and times that were tuned for one model, kept beside its weights in tuned.json."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from diffjax import samplers
from diffjax.atomic import write_json
from diffjax.errors import InputError, sentence
from diffjax.experiment import Model, Sampling
from diffjax.types import Schedule

TUNED = "tuned.json"


class Candidate(NamedTuple):
    """A way to sample in a number of calls.

    Attributes:
      sampler: name of a constructor of `diffjax.samplers`, of one call per step.
      times: n + 1 decreasing times.
      offsets: of `decoupled`, one per step, or none.
      source: where the times are from, such as karras, or learned.
      error: root mean square to the fine solution.
    """

    sampler: str
    times: tuple[float, ...]
    offsets: tuple[float, ...]
    source: str
    error: float


def read(folder: Path) -> dict[str, Any]:
    """What tuned.json says: {"setting", "tried": {calls: [candidates]}}; empty where there is none.

    Raises:
      InputError: it is damaged.
    """
    path = Path(folder) / TUNED
    if not path.is_file():
        return {"setting": None, "tried": {}}
    try:
        record = json.loads(path.read_text())
        tried = {
            calls: [
                Candidate(**one)._replace(times=tuple(one["times"]), offsets=tuple(one["offsets"]))
                for one in candidates
            ]
            for calls, candidates in record["tried"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged ({sentence(error)}); delete it, and tune again."
        ) from error
    return {"setting": record["setting"], "tried": tried}


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write tuned.json whole or not at all.

    Raises:
      InputError: the folder cannot be written.
    """
    path = Path(folder) / TUNED
    tried = {calls: [c._asdict() for c in found] for calls, found in record["tried"].items()}
    try:
        write_json(path, {**record, "tried": tried}, indent=1)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}.") from error


def best(record: dict[str, Any], calls: int | str) -> Candidate | None:
    """The candidate of least error for a number of calls; None where none was tried."""
    found = record["tried"].get(str(calls), [])
    return min(found, key=lambda candidate: candidate.error, default=None)


def sampling_of(candidate: Candidate, usual: Sampling) -> Sampling:
    """A candidate as defaults of sampling.

    Args:
      candidate: from `best`.
      usual: of the model, of which all but the sampler and the grid stay.

    Returns:
      Its sampler and its times, whatever number of steps the grid is asked for.
    """
    constructor = getattr(samplers, candidate.sampler)

    def sampler(schedule: Schedule):
        made = constructor(schedule)
        if not candidate.offsets:
            return made
        return samplers.decoupled(schedule, made, jnp.asarray(candidate.offsets))

    def times(schedule: Schedule, n: int):
        return jnp.asarray(candidate.times)

    sampler.__name__, times.__name__ = f"tuned_{candidate.sampler}", f"tuned_{candidate.source}"
    steps = len(candidate.times) - 1
    return usual._replace(sampler=sampler, grid=times, steps=steps, options={}, grid_options={})


def at_steps(model: Model, folder: Path | None, steps: str | None) -> tuple[Model, str | None]:
    """The model with what was tuned for so many steps as its defaults, and a sentence of it.

    Args:
      model: of the folder.
      folder: a workdir, or one of published weights; None leaves the model as it is.
      steps: as the command line has it, or None.

    Returns:
      The model, and what to say; None where nothing was tuned for these steps.

    Raises:
      InputError: tuned.json is damaged.
    """
    found = best(read(folder), steps) if folder and steps else None
    if found is None:
        return model, None
    said = (
        f"sampler and times of {Path(folder) / TUNED}: {found.sampler}, {found.source}, error "
        f"{found.error:.3g}; --sampler or --grid turns this off"
    )
    return model._replace(sampling=sampling_of(found, model.sampling)), said
