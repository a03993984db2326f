"""What a run says of itself while it trains: progress bar, log, checkpoints, pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffjax import parallel
from diffjax.experiment import Experiment
from diffjax.training import MetricsLog, Waited


def progress_bar(experiment: Experiment, first: int) -> tqdm:
    """A bar of examples seen, from step `first` on; silent but on the main process."""
    return tqdm(
        total=experiment.steps * experiment.batch_size,
        initial=first * experiment.batch_size,
        unit=" examples",
        unit_scale=True,
        dynamic_ncols=True,
        desc="training",
        disable=not parallel.is_main(),
    )


def reporters(
    experiment: Experiment,
    run: Mapping[str, Any],
    workdir: Path,
    keep: Callable,
    log: MetricsLog,
    bar: tqdm,
    waited: Waited,
    picture: Callable,
) -> list[Callable]:
    """The callbacks of `training.fit`.

    Args:
      experiment: its steps, batch size and learning rate.
      run: `log_every`, `checkpoint_every` and `sample_every` steps.
      workdir: where pictures go.
      keep: (step, state) -> None, which saves a checkpoint.
      log: of metrics.
      bar: from `progress_bar`.
      waited: the batches, which know how long they were waited for.
      picture: (step, state, path) -> None, which draws and writes a sheet.

    Returns:
      Functions (step, state, metrics), in the order in which they are to be called.
    """
    steps, rate = experiment.steps, experiment.learning_rate

    def progress(step, state, metrics):
        if step % run["log_every"] == 0 or step == steps:
            scalars = {k: v for k, v in metrics.items() if k != "skipped"}
            extra = {} if rate is None else {"learning_rate": rate(step - 1)}
            log.write(step, {**scalars, **extra, "skipped": metrics["skipped"][0]})
            log.timing(step, {"data_wait": waited.share()})
            bar.set_postfix(step=step, loss=f"{float(metrics['loss']):.4f}", refresh=False)
        bar.update(experiment.batch_size)

    def save(step, state, metrics):
        if step % run["checkpoint_every"] == 0 or step == steps:
            keep(step, state)

    def pictures(step, state, metrics):
        if run["sample_every"] and step % run["sample_every"] == 0 and step != steps:
            picture(step, state, workdir / "samples" / f"step_{step:06d}.png")

    return [progress, save, pictures]
