"""One metric along a row of settings: EMA lengths, or samplers at several numbers of calls."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffjax import samplers
from diffjax.errors import InputError
from diffjax.evaluation import drawn
from diffjax.experiment import Sampling
from diffjax.run.flags import constructors
from diffjax.samplers.info import sampler_info
from diffjax.types import Sampler

Judge = Callable[[Any], tuple[float, float, float]]
"""A side -> its metric against the reference: value, and both ends of the interval."""


class Point(NamedTuple):
    """A metric at one setting.

    Attributes:
      at: the EMA length, or the number of denoiser calls.
      value: of the metric.
      low: lower end of the interval, nan where there is none.
      high: upper end.
    """

    at: float
    value: float
    low: float
    high: float


class Line(NamedTuple):
    """The points of one sampler, or of the EMA lengths."""

    name: str
    points: list[Point]


def over_lengths(
    run: drawn.Run, lengths: Iterable[float], step: int | None, draw: Callable, judge: Judge
) -> tuple[Line, list[str]]:
    """A metric over EMA lengths, all drawn from the same noise.

    Args:
      run: with snapshots.
      lengths: to rebuild.
      step: of the snapshot; None is the last.
      draw: run -> side.
      judge: side -> value and interval.

    Returns:
      The line, and what a reader should know of the weights.

    Raises:
      InputError: the run has no snapshots.
    """
    points, notes = [], []
    for length in lengths:
        rebuilt = drawn.with_length(run, length, step)
        points.append(Point(length, *judge(draw(rebuilt))))
        notes += rebuilt.notes
    return Line("", points), notes


def best_of(points: Iterable[Point], better: str) -> Point:
    """The point whose value is best, `better` being "lower" or "higher"."""
    return (min if better == "lower" else max)(points, key=lambda point: point.value)


def over_calls(
    run: drawn.Run,
    names: Sequence[str],
    calls: Sequence[int],
    num: int,
    seed: int,
    cache: Path,
    judge: Judge,
    progress: Callable[[str], object] = lambda name: None,
) -> list[Line]:
    """A metric against denoiser calls for some samplers on the model's own grid.

    Calls are those of the denoiser; under guidance each evaluates the network twice.

    Args:
      run: from `open_run`.
      names: of samplers, at their defaults.
      calls: numbers of calls; a sampler takes the most steps that do not exceed them.
      num: samples of each point.
      seed: of the draws.
      cache: folder for what is drawn.
      judge: side -> value and interval.
      progress: called with the name of each point when it is done.

    Returns:
      A line for each sampler.

    Raises:
      InputError: there is no such sampler, or it chooses its own steps.
    """
    known = constructors(samplers, Sampler)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"--samplers are samplers that take a grid; got {unknown[0]}; "
            "python sample.py --list samplers shows them."
        )
    usual, lines = run.experiment.model.sampling, []
    for name in names:
        points = []
        for wanted in calls:
            steps = steps_for(known[name], wanted)
            own = usual.sampler is known[name]
            options = usual.options if own else {}
            sampling = usual._replace(sampler=known[name], steps=steps, options=options)
            side = _drawn(run, num, seed, cache, sampling)
            spent = sampler_info(known[name]).calls(steps)
            points.append(Point(spent, *judge(side)))
            progress(f"{name} {wanted}")
        lines.append(Line(name, points))
    return lines


def _drawn(run: drawn.Run, num: int, seed: int, cache: Path, sampling: Sampling):
    return drawn.samples_of(run, num, seed, cache, sampling=sampling)


def steps_for(constructor: Callable, calls: int) -> int:
    """The most steps of a sampler that cost at most so many calls; at least 1."""
    cost = sampler_info(constructor).calls
    return max([n for n in range(1, calls + 1) if cost(n) <= calls], default=1)
