"""Latents encoded once and kept on disk: `python -m diffjax.latents.cache WORKDIR`.

Writes mean and log-variance of every example of the autoencoder's data as array_record shards.
Every process writes shards of its own. A shard appears under its name only when it is whole, so
that a command that was killed goes on where it was, and ends with the same bytes.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffjax.atomic import write_json
from diffjax.data.pipeline import to_floats
from diffjax.data.source import Examples
from diffjax.errors import InputError
from diffjax.latents.cached import RECORD, SCALE, data_fingerprint, read_json, shard_path

READERS = 8  # threads


def claim(folder: Path, record: Mapping[str, Any]) -> None:
    """Begin a cache, or go on with one of the same autoencoder, data and shards.

    Raises:
      InputError: the folder holds another cache.
    """
    path = folder / RECORD
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
        return
    before = read_json(path)
    other = [name for name in record if before.get(name) != record[name]]
    if other:
        raise InputError(
            f"{folder} holds latents of another {' and '.join(other)} "
            f"({', '.join(f'{before.get(n)}, now {record[n]}' for n in other)}); give another "
            "--out, or remove it."
        )


# --- writing ----------------------------------------------------------------------------


def write_shard(path: Path, moments: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write one shard, and beside it what its channels add up to.

    Args:
      path: of the shard, which is there when this returns.
      moments: (mean, logvar) of each example, (..., C) float32.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    part = path.with_name(f".{path.name}")
    part.unlink(missing_ok=True)
    writer, count, sums = ArrayRecordWriter(str(part), "group_size:1"), 0, 0.0
    for mean, logvar in moments:
        writer.write(mean.tobytes() + logvar.tobytes())
        mean, variance = mean.astype(np.float64), np.exp(logvar.astype(np.float64))
        axes = tuple(range(mean.ndim - 1))
        sums = sums + np.stack([a.sum(axes) for a in (mean, mean**2 + variance)])
        count += int(np.prod(mean.shape[:-1]))
    writer.close()
    with part.open("rb") as file:
        os.fsync(file.fileno())
    write_json(path.with_suffix(".json"), {"count": count, "sums": sums.tolist()})
    part.replace(path)


def encoded(
    encode: Callable[[np.ndarray], tuple[Any, Any]], examples: Examples, rows: range, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(mean, logvar) of each example, encoded in batches of one size."""
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(rows.start, rows.stop, batch):
            wanted = range(start, min(start + batch, rows.stop))
            x = np.stack(list(pool.map(lambda i: to_floats(np.asarray(examples[i]["x"])), wanted)))
            mean, logvar = encode(np.resize(x, (batch, *x.shape[1:])))
            both = (np.asarray(a, np.float32)[: len(wanted)] for a in (mean, logvar))
            yield from zip(*both, strict=True)


def write(
    folder: Path,
    encode: Callable[[np.ndarray], tuple[Any, Any]],
    examples: Examples,
    record: Mapping[str, Any],
    batch: int = 64,
    process: tuple[int, int] = (0, 1),
    done: Callable[[int], None] = lambda shard: None,
) -> None:
    """Write the shards of one process that are not there yet.

    Args:
      folder: of the cache, claimed.
      encode: x (batch, ...) -> (mean, logvar), compiled.
      examples: of the data.
      record: with `count`, `shard_size` and `shards`.
      batch: examples of one compiled call.
      process: (index, count): it writes every count-th shard.
      done: called with the number of each shard that stands.
    """
    size, shards = record["shard_size"], record["shards"]
    for shard in range(process[0], shards, process[1]):
        path = shard_path(folder, shard, shards)
        if not path.is_file():
            rows = range(shard * size, min((shard + 1) * size, record["count"]))
            write_shard(path, encoded(encode, examples, rows, batch))
        done(shard)


def finish(folder: Path) -> None:
    """Write the scale of all shards: their mean, and one over their standard deviation."""
    record = read_json(folder / RECORD)
    paths = [shard_path(folder, i, record["shards"]) for i in range(record["shards"])]
    parts = [read_json(path.with_suffix(".json")) for path in paths]
    count = sum(part["count"] for part in parts)
    mean, square = np.sum([part["sums"] for part in parts], axis=0) / count
    factor = 1 / np.sqrt(np.maximum(square - mean**2, 1e-12))
    write_json(folder / SCALE, {"factor": factor.tolist(), "shift": mean.tolist()})


# --- command ----------------------------------------------------------------------------


def flags(out: Path | None = None, shard_size: int = 1024, batch_size: int = 64):
    """Flags.

    Args:
      out: folder of the latents; default WORKDIR/latents.
      shard_size: examples of a shard.
      batch_size: examples of one compiled call.
    """


def main(argv: Sequence[str]) -> None:
    """Encode the data of an autoencoder's run, on all processes."""
    from diffjax.run import flags as f
    from diffjax.run import start

    argv = [*argv]
    workdir = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    functions = [flags, start.processes, start.compiled]
    asked, processes, compiled = f.parse("diffjax.latents.cache WORKDIR", __doc__, functions, argv)
    if workdir is None:
        raise InputError("give the workdir of an autoencoder.")
    f.at_least_one(asked, ("shard_size", "batch_size"))
    start.compiled(**compiled)
    start.join_processes(**processes)
    start.check_platform()
    encode_run(workdir, asked["out"] or workdir / "latents", asked)


def encode_run(workdir: Path, folder: Path, asked: Mapping[str, Any]) -> None:
    """Encode the data of a run with its autoencoder. Arguments as the flags."""
    from tqdm import tqdm

    from diffjax import parallel
    from diffjax.data import load
    from diffjax.run.autoencoder import open_autoencoder
    from diffjax.run.weights import fingerprint
    from diffjax.run.workdir import load_experiment

    coder, get = open_autoencoder(workdir)
    examples, params = load(load_experiment(workdir).source).examples, get()
    size = asked["shard_size"]
    record = {
        "autoencoder": fingerprint(params),
        "data": data_fingerprint(examples),
        "shape": list(coder.shape),
        "count": len(examples),
        "shard_size": size,
        "shards": -(-len(examples) // size),
    }
    parallel.on_main(lambda: claim(folder, record), f"could not write to {folder}")
    mesh = parallel.make_mesh(devices=jax.local_devices())
    batch = -(-asked["batch_size"] // parallel.row_shards(mesh)) * parallel.row_shards(mesh)
    params = jax.device_put(params, parallel.replicated(mesh))
    jitted = jax.jit(coder.encode, out_shardings=parallel.replicated(mesh))

    def encode(x):
        return jitted(params, jax.device_put(x, parallel.rows(mesh)))

    place = (jax.process_index(), jax.process_count())
    mine = len(range(place[0], record["shards"], place[1]))
    with tqdm(total=mine, unit=" shards", disable=not parallel.is_main(), leave=False) as bar:
        write(folder, encode, examples, record, batch, place, lambda shard: bar.update())
    parallel.wait_for_all("diffjax.latents.cache")
    parallel.on_main(lambda: finish(folder), f"could not finish {folder}")
    if parallel.is_main():
        print(f"{len(examples):,} examples as latents {coder.shape} in {folder}")


if __name__ == "__main__":
    from diffjax.run import start

    sys.argv[0] = "diffjax.latents.cache"
    start.run(main)
