"""The best checkpoint of a run by a named metric, kept beside the newest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax import parallel
from diffjax.atomic import write_json
from diffjax.errors import InputError

PREFIX = "eval/"
"""Of the metrics of samples in metrics.jsonl."""
RECORD = "best.json"


class Best(NamedTuple):
    """The best step so far.

    Attributes:
      step: its step; -1 where none was evaluated.
      value: its metric.
      metric: name of the metric.
      better: "lower" or "higher".
    """

    step: int = -1
    value: float = np.nan
    metric: str = ""
    better: str = "lower"

    def after(self, step: int, value: float) -> "Best":
        """The best once one more step is evaluated; of two alike, the earlier."""
        sign = 1 if self.better == "lower" else -1
        if self.step >= 0 and not sign * value < sign * self.value:
            return self
        return self._replace(step=step, value=float(value))


class Kept:
    """The best step of a run, as it changes; a checkpoint manager asks it what to keep.

    Attributes:
      best: the best step so far.
    """

    def __init__(self, workdir: Path):
        self.workdir, self.best = workdir, recorded(workdir)

    def __call__(self, step: int) -> bool:
        """Whether the step is the best one now."""
        return step == self.best.step

    def begin(self, last: int, metric: str = "", better: str = "lower") -> None:
        """Look for the best step up to `last` in the log, for the same metric or another.

        Args:
          last: step that the run goes on from; what was evaluated after it does not count.
          metric: its name; "" is that of before.
          better: "lower" or "higher".
        """
        best = self.best if not metric else Best(metric=metric, better=better)
        best = best._replace(step=-1, value=np.nan)
        for row in evaluations(self.workdir) if parallel.is_main() else []:
            if PREFIX + best.metric in row and row["step"] <= last:
                best = best.after(row["step"], row[PREFIX + best.metric])
        self._share(best)

    def add(self, step: int, value: float | None) -> None:
        """One more step, with its value on the main process; every process calls."""
        best = self.best if value is None else self.best.after(step, value)
        self._share(best)
        if parallel.is_main():
            write_json(self.workdir / RECORD, best._asdict())

    def _share(self, best: Best) -> None:
        """The main process's best step on all, which decide together what is deleted."""
        if jax.process_count() > 1:
            from jax.experimental.multihost_utils import broadcast_one_to_all

            step, value = broadcast_one_to_all((np.int32(best.step), np.float32(best.value)))
            best = best._replace(step=int(step), value=float(value))
        self.best = best


def recorded(workdir: Path) -> Best:
    """What best.json says.

    Raises:
      InputError: it is damaged.
    """
    path = workdir / RECORD
    if not path.is_file():
        return Best()
    try:
        return Best(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged; delete it, and the best is sought anew.") from error


def evaluations(workdir: Path) -> list[Mapping[str, Any]]:
    """The lines of metrics.jsonl; one that a crash cut short is left out."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]
