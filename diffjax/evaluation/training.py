"""Metrics of a run's samples while it trains: `train.py --evaluate-every N`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from diffjax import parallel
from diffjax.data import Source
from diffjax.errors import InputError
from diffjax.evaluation import compare, sides
from diffjax.evaluation.extractors import choose_features
from diffjax.experiment import Experiment, Frozen
from diffjax.run.best import PREFIX, Kept
from diffjax.run.images import BATCH, drawer
from diffjax.training import MetricsLog
from diffjax.types import Params

REFERENCE = 5000
"""Real images that samples are compared with at most, while a run trains."""


def slug(name: str) -> str:
    """A metric's name as one word: "Frechet distance" is frechet_distance."""
    return name.lower().replace(" ", "_")


def cheap(reference: compare.Sets, samples: compare.Sets) -> list[compare.Family]:
    """The metrics that cost seconds."""
    families = compare.metrics_of("Frechet distance", reference, samples)
    return [family for family in families if "Frechet distance, extrapolated" not in family.better]


class Evaluator(NamedTuple):
    """What compares a run's samples with its data.

    Attributes:
      better: name of each metric -> "lower", "higher" or "floor"; empty but on the main process.
      evaluate: parameters -> name -> value, likewise.
    """

    better: Mapping[str, str]
    evaluate: Callable[[Params], Mapping[str, float]]


def evaluator(
    experiment: Experiment, source: Source, workdir: Path, mesh: Mesh, frozen: Frozen, num: int
) -> Evaluator:
    """A function that draws samples and compares them with the run's own data.

    Every call draws with the same noise, so that steps differ by their weights alone.

    Args:
      experiment: whose model draws at its own defaults.
      source: its data; at most 5,000 images of it are the reference.
      workdir: where the classifier of the reference is kept.
      mesh: of all processes; each calls, and the main one compares.
      frozen: the model's frozen parameters.
      num: samples of each evaluation.

    Returns:
      An `Evaluator`.

    Raises:
      InputError: too few samples or real images to compare, or data that are no images.
    """
    ready: dict[str, Any] = {}

    def prepare():
        if num < 20 or len(source.examples) < 20:
            raise InputError(
                f"an evaluation compares at least 20 samples with at least 20 real images; got "
                f"{num} and {len(source.examples)}."
            )
        rows = np.random.default_rng(0).permutation(len(source.examples))[:REFERENCE]
        side = sides.of_source(str(workdir), lambda: source, np.sort(rows))
        cache = workdir / "evaluation"
        cache.mkdir(exist_ok=True)
        ready["features"] = choose_features(None, side, cache)
        ready["real"] = sets(side.images, side.labels)

    def sets(images, labels):
        return compare.Sets(labels=labels, **ready["features"].all_of(images))

    def evaluate(params):
        drawn = draw(params, frozen, 0, num, batch=min(BATCH, num))
        if not parallel.is_main():
            return {}
        samples = sets(drawn.images, drawn.labels)
        found = compare.values_of(cheap(ready["real"], samples), ready["real"], samples)
        return {slug(name): value for name, value in found.items()}

    parallel.on_main(prepare, "could not prepare the evaluation")
    draw, better = drawer(experiment.model, mesh), {}
    if parallel.is_main():
        labelled = any(condition.classes for condition in experiment.model.conditions)
        real = ready["real"] if labelled else ready["real"]._replace(labels=None)
        families = cheap(ready["real"], real)
        better = {slug(name): how for name, how in compare.better_of(families).items()}
    return Evaluator(better, evaluate)


def while_training(
    evaluator: Evaluator,
    run: Mapping[str, Any],
    steps: int,
    first: int,
    kept: Kept,
    log: MetricsLog,
    save: Callable,
) -> Callable:
    """The callback of `training.fit` that evaluates the first average, and keeps the best step.

    What is evaluated is saved too, after its line of the log, so that a run that is killed
    between the two evaluates that step again.

    Args:
      evaluator: from `evaluator`.
      run: `evaluate_every` and `best_metric`.
      steps: of the run; the last is evaluated.
      first: step that the run goes on from.
      kept: what the checkpoint manager asks.
      log: of metrics.
      save: (step, state) -> None.

    Returns:
      (step, state, metrics) -> None.

    Raises:
      InputError: there is no such metric, or it has no best.
    """
    metric = run["best_metric"]

    def check():
        usable = [name for name, how in evaluator.better.items() if how != "floor"]
        if metric not in usable:
            raise InputError(f"--best-metric must be one of {', '.join(usable)}; got {metric!r}.")

    parallel.on_main(check, "refused --best-metric")
    kept.begin(first, metric, evaluator.better.get(metric, "lower"))

    def callback(step, state, metrics):
        if step % run["evaluate_every"] and step != steps:
            return
        found = evaluator.evaluate(state.ema_params)
        if found:
            log.write(step, {PREFIX + name: value for name, value in found.items()})
        kept.add(step, found.get(metric))
        save(step, state)

    return callback
