"""What a workdir draws: its weights, and images that are kept as they are drawn."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from diffjax import parallel
from diffjax.atomic import atomic_write
from diffjax.evaluation import sides
from diffjax.evaluation.features import fingerprint
from diffjax.experiment import Experiment, Frozen, Sampling
from diffjax.run import draw, images, snapshots, weights
from diffjax.run.workdir import load_experiment
from diffjax.types import Params

PIECE = images.BATCH
"""Images of a piece, each of which is kept, so that a killed evaluation goes on."""
FRAMES = 10
"""Times of a denoising that are shown."""


class Run(NamedTuple):
    """A workdir with weights to draw from.

    Attributes:
      workdir: of train.py.
      experiment: its experiment.
      mesh: of devices.
      params: parameters to draw with.
      frozen: parameters of the model's frozen networks.
      step: of the checkpoint.
      name: what the weights are called.
      notes: what a reader should know of them.
    """

    workdir: Path
    experiment: Experiment
    mesh: Mesh
    params: Params
    frozen: Frozen
    step: int
    name: str
    notes: tuple[str, ...] = ()


def open_run(workdir: Path, step: int | None = None) -> Run:
    """The first average of a run.

    Args:
      workdir: of train.py.
      step: of the checkpoint; None is the newest that is intact.

    Returns:
      The `Run`.

    Raises:
      InputError: it is no workdir, or has no such checkpoint.
    """
    experiment, mesh = load_experiment(workdir), parallel.make_mesh()
    found = weights.restore_average(workdir, experiment, mesh, step)
    frozen = weights.load_frozen(experiment.model.frozen, mesh)
    name = f"checkpoint {found.step}"
    return Run(
        workdir, experiment, mesh, found.params, frozen, found.step, name, tuple(found.damaged)
    )


def with_length(run: Run, length: float, step: int | None = None) -> Run:
    """The same run with the average of another length, from its snapshots."""
    found = snapshots.restore_length(run.workdir, run.experiment, run.mesh, length, step)
    name = f"EMA length {length:g} at step {found.step}"
    return run._replace(params=found.params, step=found.step, name=name, notes=tuple(found.damaged))


def samples_of(
    run: Run,
    num: int,
    seed: int,
    cache: Path,
    progress: Callable[[int], object] = lambda n: None,
    sampling: Sampling | None = None,
) -> sides.Side:
    """Images `sample.py --num NUM --seed SEED` would draw, in pieces that are kept.

    Args:
      run: from `open_run`.
      num: how many.
      seed: of the draw.
      cache: folder of the pieces.
      progress: called with the number of images of each piece.
      sampling: how; default the model's own.

    Returns:
      The side.

    Raises:
      InputError: the model draws no images, or they are not finite.
    """
    cache.mkdir(parents=True, exist_ok=True)
    made, files = None, []
    mark = fingerprint(weights.fingerprint(run.params), _settings(run, sampling), str(seed))
    for first in range(0, num, PIECE):
        count = min(PIECE, num - first)
        files.append(cache / f"samples-{mark}-{first}-{count}.npz")
        if not files[-1].is_file():
            made = made or images.drawer(run.experiment.model, run.mesh, sampling)
            found = made(run.params, run.frozen, seed, count, first, min(PIECE, num))
            labels = {} if found.labels is None else {"labels": found.labels}
            if parallel.is_main():
                write_whole(files[-1], {"samples": found.images, **labels})
        progress(count)
    parallel.wait_for_all("diffjax.evaluate")
    parts = [sides.read_npz(file) for file in files]
    labels = None if parts[0].labels is None else np.concatenate([p.labels for p in parts])
    return sides.side(str(run.workdir), np.concatenate([p.images for p in parts]), labels)


def _settings(run: Run, sampling: Sampling | None) -> str:
    """What changes a draw beside the weights: the config, and another sampling."""
    files = [run.workdir / "config.py", run.workdir / "config.json"]
    text = "".join(file.read_text() for file in files)
    if sampling is None:
        return text
    shown = sampling._replace(sampler=sampling.sampler.__name__, grid=sampling.grid.__name__)
    return f"{text}{shown}"


def write_whole(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz whole or not at all."""
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def denoising(run: Run, num: int, seed: int) -> np.ndarray:
    """The way of the first images from noise, at the model's own defaults.

    Args:
      run: from `open_run`.
      num: images.
      seed: of the draw.

    Returns:
      (num, times, H, W, C) uint8, at most 10 times, the first and the last among them.
    """
    model = run.experiment.model
    film, ts, scale = draw.usual_draw(model, run.mesh, loop=draw.path_on_grid)
    key = parallel.init_sharded(jax.random.key, run.mesh, np.uint32(seed))
    raw = draw.conditions_of(model, num)
    path, _ = film.samples(run.params, run.frozen, key, ts, raw, num, scale)
    chosen = np.unique(np.linspace(0, len(path) - 1, FRAMES).round().astype(int))
    return np.stack([images.to_images(path[i]) for i in chosen], axis=1)
