"""How cost grows: `python benchmarks/growth.py [BEGINNING OF A TABLE ...] [--out docs/growth]`.

Batch, side of the picture, steps, depth, number of samples and number of devices grow one at a
time, the rest stays. Against each stands what the mathematics says: the FLOPs of the products and
convolutions of the very program (steps and samples: their number; devices: nothing, for the whole
batch stays, and eight virtual devices share the same cores). The last column is what the time grows
by over what the mathematics grows by, from the first row on; above 1 something else grows.

The least of several calls that take turns, on the cores there are. Writes OUT.jsonl, a line for
each table, where one that is measured anew replaces the old one, and OUT.png, the curves of all.
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffjax import grids, make_denoiser, models, parallel, predict_v, sample, samplers, schedules
from diffjax.plan.flops import matmul_flops

SCHEDULE = schedules.vp_cosine()


class Case(NamedTuple):
    """One row.

    Attributes:
      size: how far it grew.
      call: without arguments.
      expected: what the cost should be in proportion to.
      compiled: seconds of tracing and compiling.
    """

    size: int
    call: object
    expected: float
    compiled: float


def compiled(size, function, *arguments, expected=None):
    """The row of a function of arrays."""
    began = time.perf_counter()
    traced = jax.jit(function).trace(*arguments)
    run = traced.lower().compile()
    took = time.perf_counter() - began
    flops = matmul_flops(traced.jaxpr.jaxpr)
    call = lambda: jax.block_until_ready(run(*arguments))  # noqa: E731
    return Case(size, call, expected or flops, took)


def network(module, batch, side, channels=3):
    """(function, params, x, t) of a forward pass."""
    x, t = jnp.ones((batch, side, side, channels)), jnp.ones(batch)
    params = jax.jit(module.init)(jax.random.key(0), x, t)["params"]
    return lambda p, x, t: module.apply({"params": p}, x, t), params, x, t


def unet():
    """A U-Net of three levels with attention at the last."""
    return models.ddpm_unet(channels=32, multipliers=(1, 2, 2), attention_levels=(2,))


def dit(depth=2, **how):
    """A DiT of 192 channels on patches of 2."""
    return models.DiT(width=192, depth=depth, heads=3, num_classes=0, learn_sigma=False, **how)


def gradient(module, batch, side):
    """(function, params, x, t) of a backward pass."""
    call, *given = network(module, batch, side)
    return jax.grad(lambda p, x, t: (call(p, x, t) ** 2).sum()), *given


def drawn(steps, batch=1, side=8):
    """(function, params, x, ts) of a whole draw by DDIM."""
    call, params, x, _ = network(unet(), batch, side)

    def draw(params, x, ts):
        net = lambda p, x, c, cond, key: call(p, x, c)  # noqa: E731
        denoiser = make_denoiser(net, params, SCHEDULE, predict_v)
        return sample(jax.random.key(0), denoiser, samplers.ddim(SCHEDULE), x, ts, None)

    return draw, params, x, grids.trailing(SCHEDULE, steps)


def in_batches(num, batch=8):
    """A draw of `num` samples in batches of one compiled call, as sample.py draws them."""
    draw, params, x, ts = drawn(5, batch)
    run = jax.jit(draw).lower(params, x, ts).compile()

    def call():
        for _ in range(num // batch):
            np.asarray(run(params, x, ts))

    return Case(num, call, num, 0.0)


def on_devices(count, batch=32):
    """The same forward pass with its batch cut over virtual devices."""
    call, params, x, t = network(unet(), batch, 16)
    mesh = parallel.make_mesh(devices=jax.devices()[:count])
    x, t = jax.device_put((x, t), parallel.rows(mesh))
    params = jax.device_put(params, parallel.replicated(mesh))
    return compiled(count, call, params, x, t, expected=1.0)


def growing(make):
    """A function of the size that gives a row: `make` gives a function and its arguments."""
    return lambda size: compiled(size, *make(size))


scanned = partial(dit, scan_blocks=True)
TABLES = {
    "batch, U-Net": (growing(lambda n: network(unet(), n, 16)), (1, 4, 16, 64)),
    "batch, DiT": (growing(lambda n: network(dit(), n, 16)), (1, 4, 16, 64)),
    "side, U-Net": (growing(lambda n: network(unet(), 1, n)), (16, 32, 64, 128)),
    "side, DiT": (growing(lambda n: network(dit(), 1, n)), (16, 32, 64)),
    "depth, DiT": (growing(lambda n: network(dit(n), 4, 16)), (2, 4, 8, 16)),
    "depth, DiT, scan": (growing(lambda n: network(scanned(n), 4, 16)), (2, 4, 8, 16)),
    "depth, DiT, gradient": (growing(lambda n: gradient(dit(n), 4, 16)), (2, 4, 8, 16)),
    "steps": (lambda n: compiled(n, *drawn(n), expected=n), (10, 100, 1000)),
    "samples": (in_batches, (16, 64, 256)),
    "devices": (on_devices, (1, 2, 4, 8)),
}


def seconds(rows, rounds):
    """The least time of each, taken in turn."""
    for row in rows:
        row.call()
    taken = []
    for _ in range(rounds):
        for row in rows:
            began = time.perf_counter()
            row.call()
            taken.append(time.perf_counter() - began)
    return np.reshape(taken, (rounds, len(rows))).min(0)


def growths(rows):
    """(how far it grew, time over the first, what the mathematics says over the first)."""
    found = np.array([row[:3] for row in rows], float)
    return (found / found[0]).T


def printed(name, rows):
    """The lines of a table."""
    grown = zip(rows, *growths(rows)[1:], strict=True)
    for (size, taken, _, first), grew, should in grown:
        compile_ = f"{first:.1f}" if first else ""
        line = f"| {name} | {size} | {1e3 * taken:.2f} | {compile_} "
        tqdm.write(f"{line}| {grew:.1f} | {should:.1f} | {grew / should:.2f} |")


def draw_curves(path, tables):
    """Time over what the mathematics says, for each table."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name in filter(tables.get, TABLES):
        size, grew, should = growths(tables[name])
        axes.plot(size, grew / should, marker="o", label=name)
    axes.axhline(1, color="0.6", linewidth=1)
    axes.set(xscale="log", xlabel="how far it grew", ylabel="time over what the mathematics says")
    axes.set_xscale("log", base=2)
    axes.set_ylim(0)
    axes.legend(ncols=2, fontsize=8)
    figure.savefig(path, dpi=100)


def main():
    """Measure and print the tables asked for, and draw all that there are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("only", nargs="*", help="beginnings of the tables' names")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/growth"))
    asked = parser.parse_args()
    file = asked.out.with_suffix(".jsonl")
    lines = file.read_text().splitlines() if file.is_file() else []
    tables = dict(map(json.loads, lines))
    print("| grows | to | ms | to compile, s | time grew | mathematics grew | over it |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    names = [name for name in TABLES if not asked.only or name.startswith(tuple(asked.only))]
    for name in tqdm(names, leave=False):
        make, sizes = TABLES[name]
        rows = [make(size) for size in sizes]
        times = seconds(rows, asked.rounds)
        tables[name] = [
            [row.size, round(float(taken), 6), float(row.expected), round(row.compiled, 1)]
            for row, taken in zip(rows, times, strict=True)
        ]
        printed(name, tables[name])
        file.write_text("".join(json.dumps(item) + "\n" for item in tables.items()))
    draw_curves(asked.out.with_suffix(".png"), tables)


if __name__ == "__main__":
    main()
