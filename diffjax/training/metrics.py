"""Metrics of a run, as `metrics.jsonl` and as TensorBoard events, without TensorFlow."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.atomic import atomic_write


class MetricsLog(NamedTuple):
    """Functions that write to one run's logs.

    Attributes:
      write: (step, {"loss": ...}) -> None; one line of metrics.jsonl, and TensorBoard.
      timing: (step, {"data_wait": ...}) -> None; TensorBoard alone, for metrics.jsonl is the same
        whenever a run is repeated.
      image: (step, (H, W, C) uint8) -> None, to TensorBoard.
      close: () -> None.
    """

    write: Callable[[int, dict[str, Any]], None]
    timing: Callable[[int, dict[str, float]], None]
    image: Callable[[int, np.ndarray], None]
    close: Callable[[], None]


def open_log(workdir: Path, step: int) -> MetricsLog:
    """Open the logs of a run that goes on from `step`; what was logged after it is dropped.

    Args:
      workdir: the run's folder.
      step: the step restored, 0 for a new run.

    Returns:
      A `MetricsLog`.
    """
    from tensorboardX import SummaryWriter

    path = workdir / "metrics.jsonl"
    kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
    with atomic_write(path) as whole:
        whole.write("".join(line + "\n" for line in kept).encode())
    file = path.open("a", buffering=1)
    events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1 if step else None)

    def write(step, metrics):
        numbers = {name: float(value) for name, value in metrics.items()}
        file.write(json.dumps({"step": step, **numbers}) + "\n")
        timing(step, numbers)

    def timing(step, numbers):
        for name, value in numbers.items():
            events.add_scalar(name, value, step)

    def image(step, picture):
        events.add_image("samples", picture, step, dataformats="HWC")

    def close():
        file.close()
        events.close()

    return MetricsLog(write, timing, image, close)


def no_log() -> MetricsLog:
    """The logs of a process that leaves writing to another."""
    return MetricsLog(*(lambda *values: None for _ in MetricsLog._fields))


def _lines(path: Path) -> list[str]:
    """The whole lines of a log; a line cut short by a crash is left out."""
    if not path.exists():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if line.endswith("}")]
