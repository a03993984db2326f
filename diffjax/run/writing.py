"""From a draw to its files: batches of one compiled function, written as they come."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from diffjax import grids, parallel
from diffjax.codec import Writer
from diffjax.conditioning import Raw
from diffjax.errors import InputError
from diffjax.experiment import Model
from diffjax.run import draw as d
from diffjax.run.encode import encode_once
from diffjax.run.executables import Kept
from diffjax.run.files import writer_of
from diffjax.run.flags import name_of
from diffjax.run.weights import load_frozen
from diffjax.types import Grid


def open_writers(model: Model, asked: Mapping[str, Any], usual: str) -> list[tuple[Path, Writer]]:
    """The files that were asked for, checked; `usual` is the name of the one that is not."""
    paths = [*asked["out"], *(p for p in (asked.get("npz"), asked.get("gif")) if p)]
    if not asked["out"]:
        suffix = ".png" if ".png" in model.codec.writers else next(iter(model.codec.writers))
        paths.insert(0, Path(f"{usual}{suffix}"))
    return [(path, writer_of(path, model.codec)) for path in paths]


def draw_and_write(
    weights: Callable,
    model: Model,
    constructor: Callable,
    options: Mapping[str, Any],
    ts: Grid | None,
    raw: Raw,
    asked: Mapping[str, Any],
    loop: d.Loop | None = None,
    usual: str = "samples",
    kept: Kept | None = None,
) -> None:
    """Draw all samples in batches of one compiled function, and write them as they come.

    Args:
      weights: from `open_model`.
      model: from `open_model`.
      constructor: what the loop runs, of the schedule and `options`.
      options: its keywords.
      ts: the grid; None for a sampler that chooses its own.
      raw: the raw conditions of all samples.
      asked: values of flags: num, batch_size, guidance_scale, seed, mesh, step, out.
      loop: what runs the sampler; default by whether there is a grid.
      usual: name of the file that is written where none is asked for.
      kept: where compiled functions of this model are, if anywhere.

    Raises:
      InputError: a file that cannot be written, or samples that are not finite.
    """
    main_process = parallel.is_main()
    say = print if main_process else (lambda text: None)
    writers = open_writers(model, asked, usual)
    animated = [(path, writer) for path, writer in writers if writer.frames]
    if animated and ts is None:
        raise InputError(
            f"{name_of(constructor)} has no grid for --gif to show; leave out one of them."
        )
    loop = loop or (d.on_grid if ts is not None else d.without_grid)
    ts = grids.trailing(model.schedule, 1) if ts is None else ts
    mesh = parallel.make_mesh(asked["mesh"])
    num, batch = asked["num"], min(asked["num"], asked["batch_size"])
    scale = asked["guidance_scale"]
    guide = scale != 1
    d.check_guide(model, guide)
    model, frozen, given = encode_once(model, load_frozen(model.frozen, mesh), raw, mesh)
    draw = d.make_draw(model, constructor, options, guide, loop, mesh, kept)
    params, named = weights(mesh, asked["step"], asked.get("ema"), say)
    key = parallel.init_sharded(jax.random.key, mesh, np.uint32(asked["seed"]))

    def part(first, size):
        # A last batch that is not full is drawn whole and cut, so that nothing recompiles;
        # the key is that of every batch, for sample i folds in its index.
        wanted = {name: array[first : first + size] for name, array in given.items()}
        return params, frozen, jax.random.clone(key), ts, wanted, size, scale, first

    bar = tqdm(total=num, unit=" samples", desc="compiling", leave=False, disable=not main_process)
    draw.compile(*part(0, batch))
    bar.set_description("sampling")
    still = [pair for pair in writers if main_process and not pair[1].frames]
    sinks = [writer.open(path, num, raw) for path, writer in still]
    for first in range(0, num, batch):
        began = time.perf_counter()
        samples, spent = draw.samples(*part(first, batch))
        if not np.isfinite(samples).all():
            raise InputError(
                "the samples are not finite; use another sampler or more --steps, a lower "
                "--guidance-scale, or an earlier --step."
            )
        if first == 0:
            rate = batch / (time.perf_counter() - began)
            bar.clear()
            say(
                f"{mesh.size} {jax.devices()[0].device_kind}, {name_of(constructor)}, "
                f"{spent:.6g} {loop.unit}, {rate:,.0f} images/s once compiled; "
                f"guidance scale {scale:g}, {named}"
            )
        for sink in sinks:
            sink.add(samples[: num - first])
        bar.update(len(samples[: num - first]))
    bar.close()
    for path, writer in animated:
        film = d.make_draw(model, constructor, options, guide, d.path_on_grid, mesh)
        frames, _ = film.samples(*part(0, min(num, writer.frames)))
        if main_process:
            sinks.append(writer.open(path, num, raw))
            sinks[-1].add(frames)
    for sink in sinks:
        print(sink.close())
