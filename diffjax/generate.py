"""A whole draw of samples as one compiled call: prior, guidance, sampler."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffjax import images, parallel
from diffjax.config import Experiment, Published
from diffjax.diffusion import prior_sample
from diffjax.samplers import sample
from diffjax.samplers.checks import check_start
from diffjax.types import (
    AdaptiveSampler,
    Array,
    Grid,
    Params,
    PRNGKeyArray,
    PyTree,
    Sampler,
    Samples,
)

PREVIEW_COLUMNS = 10


class Loop(NamedTuple):
    """A loop for `make_draw` that also says what it spent.

    Attributes:
      draw: (key, denoiser, sampler, x, ts, cond, first) -> (samples, what was spent).
      unit: of what was spent.
    """

    draw: Callable[..., tuple[Samples, Array | int]]
    unit: str


def _stepping(key, denoiser, sampler, x, ts, cond, first):
    return sample(key, denoiser, sampler, x, ts, cond, first), ts.shape[0] - 1


def _choosing(key, denoiser, sampler, x, ts, cond, first):
    return sampler(key, denoiser, x, cond, first)


on_grid = Loop(_stepping, "steps")
without_grid = Loop(_choosing, "denoiser calls")


def make_draw(
    experiment: Experiment | Published,
    constructor: Callable[..., Sampler | AdaptiveSampler],
    options: dict[str, Any],
    guided: bool = True,
    loop: Callable[..., PyTree] = sample,
    mesh: Mesh | None = None,
) -> Callable[..., PyTree]:
    """A jitted function that draws a batch of samples.

    Everything that a user turns is an argument of it: parameters, key, labels, scale, grid
    values and the sampler's numbers. Only the batch size or the number of steps recompiles.

    Args:
      experiment: gives denoiser, guidance, schedule and shape.
      constructor: of `diffjax.samplers`, of a kind that the loop takes.
      options: its keywords; floats among them become traced values.
      guided: whether to apply the experiment's guidance, which doubles the work.
      loop: `sample`, `sample_path`, `sample_truncated`, or the draw of a `Loop`.
      mesh: whose devices share the batch, None for one device. A batch that does not divide
        is drawn larger and cut; the result is whole on every device.

    Returns:
      draw(params, key, ts, batch=, label=None, scale=1., first=0) -> what the loop returns,
      such as samples (B, ...), as NumPy arrays.
    """
    constructor(experiment.schedule, **options)  # refuses bad options while they are concrete
    numbers = {k: v for k, v in options.items() if isinstance(v, float)}
    choices = {k: v for k, v in options.items() if not isinstance(v, float)}
    mesh = mesh or parallel.make_mesh(devices=jax.devices()[:1])
    shards = parallel.row_shards(mesh)

    def run(params, key, ts, label, scale, first, numbers, batch):
        prior_key, noise_key = jax.random.split(key)
        denoiser = experiment.denoiser(params)
        if guided and experiment.guide is not None:
            denoiser = experiment.guide(denoiser, scale)
        sampler = constructor(experiment.schedule, **choices, **numbers)
        x = prior_sample(prior_key, experiment.schedule, (batch, *experiment.shape), first, ts[0])
        cond = None if label is None else {"label": label}
        x, cond = jax.lax.with_sharding_constraint((x, cond), parallel.rows(mesh))
        return loop(noise_key, denoiser, sampler, x, ts, cond, first)

    run = jax.jit(run, static_argnames="batch", out_shardings=parallel.replicated(mesh))

    asked = set()

    def ask(params, ts, label, batch):
        """Let the denoiser refuse a first time, once: it is traced inside run."""
        if float(ts[0]) in asked:
            return
        asked.add(float(ts[0]))
        x = jnp.zeros((batch, *experiment.shape))
        cond = None if label is None else {"label": jnp.asarray(label)}
        jax.eval_shape(lambda p: check_start(experiment.denoiser(p), x, ts, cond), params)

    def cut(array, batch):
        """Without the rows that were drawn for the mesh alone; a path has the times before them."""
        rows = array.ndim - 1 - len(experiment.shape)
        return array if rows < 0 else array[(slice(None),) * rows + (slice(batch),)]

    def draw(
        params: Params,
        key: PRNGKeyArray,
        ts: Grid,
        batch: int,
        label: Array | np.ndarray | None = None,
        scale: float = 1.0,
        first: int = 0,
    ) -> PyTree:
        ask(params, ts, label, batch)
        size = -(-batch // shards) * shards
        label = None if label is None else np.resize(label, size)
        numeric = jax.tree.map(np.float32, numbers)
        ts, scale = np.asarray(ts), np.float32(scale)  # of no device, as many processes need them
        drawn = run(params, key, ts, label, scale, first, numeric, batch=size)
        return jax.tree.map(lambda leaf: cut(np.asarray(leaf), batch), drawn)

    return draw


def preview(
    experiment: Experiment, mesh: Mesh | None = None
) -> Callable[[Params, PRNGKeyArray, Path], np.ndarray]:
    """A function that draws a sheet of samples with the experiment's defaults.

    Args:
      experiment: one row per class, or ten rows where there are none.
      mesh: as for `make_draw`; every process of it must call, and the main one writes.

    Returns:
      (params, key, path) -> (H, W, C) uint8, also written to the path as a PNG. The same
      key gives the same noise, so that sheets of one run can be compared.
    """
    defaults = experiment.sampling
    draw = make_draw(
        experiment,
        defaults.sampler,
        dict(defaults.options),
        guided=defaults.guidance_scale != 1,
        mesh=mesh,
    )
    ts = defaults.grid(experiment.schedule, defaults.steps)
    rows = experiment.num_classes or PREVIEW_COLUMNS
    label = np.repeat(np.arange(rows), PREVIEW_COLUMNS) if experiment.num_classes else None

    def write(params, key, path):
        batch = rows * PREVIEW_COLUMNS
        x = draw(params, jax.random.clone(key), ts, batch, label, defaults.guidance_scale)
        sheet = images.grid(images.to_uint8(x), PREVIEW_COLUMNS)
        if parallel.is_main():
            path.parent.mkdir(parents=True, exist_ok=True)
            images.save_png(path, sheet)
        return sheet

    return write
