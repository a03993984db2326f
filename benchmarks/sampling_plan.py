"""What a draw by SDXL or FLUX.1 needs on TPU slices, from the TPU's own compiler, without a TPU.

    python benchmarks/sampling_plan.py sdxl v5e:2x2 v6e:2x2 [--mesh data=-1] [--batch 4]

A whole draw of 1024x1024 latents as one compiled call: weights and computation in bfloat16, 30
steps of DPM-Solver++(2M) with two predictions each for SDXL, 28 Euler steps with the guidance
embedded for FLUX.1. The autoencoder and the text encoders are not in it. Nothing is run.
"""

import argparse
import os
import sys
from functools import partial

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
from published_sizes import FLUX, SDXL, flux, in_bfloat16, init, sdxl

from diffjax import grids, guidance, parallel, plan, samplers
from diffjax.parameterization import make_denoiser
from diffjax.samplers import sample

SYSTEMS = {
    "sdxl": (SDXL, sdxl, samplers.dpmpp_2m, 30),
    "flux": (FLUX, partial(flux, scan_blocks=False), samplers.euler, 28),
    "flux-scanned": (FLUX, flux, samplers.euler, 28),
}
GIB = 2**30


def parameters(config, module):
    """Shapes of the parameters in bfloat16."""
    found = jax.eval_shape(partial(init, config, module), jax.random.key(0))
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.bfloat16), found)


def draw_of(system):
    """(shapes of parameters, (params, key, x, cond) -> x0, shape of x, shapes of conditions)."""
    config, make, constructor, steps = SYSTEMS[system]
    module, net, predicts, schedule, shape, condition = make()
    net, sampler = in_bfloat16(net), constructor(schedule)
    ts = grids.trailing(schedule, steps)

    def draw(params, key, x, cond):
        denoiser = make_denoiser(net, params, schedule, predicts)
        if system == "sdxl":
            null = {k: jnp.zeros(a.shape[1:], a.dtype) for k, a in cond.items()}
            denoiser = guidance.classifier_free(denoiser, 5.0, null)
        return sample(key, denoiser, sampler, x, ts, cond)

    return parameters(config, module), draw, shape, condition.example, steps


def row(system, topology, mesh, batch):
    """One line of the table."""
    params, draw, shape, conditions, steps = draw_of(system)
    grid = parallel.make_mesh(mesh, plan.devices_of(topology))
    like = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        params,
        parallel.shardings(params, grid),
    )

    def rows(shape):
        return jax.ShapeDtypeStruct((batch, *shape), jnp.float32, sharding=parallel.rows(grid))

    key = jax.eval_shape(jax.random.key, 0)
    given = {name: rows(a.shape) for name, a in conditions.items()}
    traced = jax.jit(draw).trace(like, key, rows(shape), given)
    found = plan.cost_of(traced, plan.matmul_flops(traced.jaxpr.jaxpr), grid)
    chip = plan.chip_of(topology)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    axes = ", ".join(f"{axis}={size}" for axis, size in found.mesh.items() if size > 1)
    head = f"| {system}, {count:,} | {topology} | {axes} | {batch} "
    memory = f"| {found.memory / GIB:.2f} / {(found.limit or chip.hbm) / GIB:.2f} "
    if found.hbm is None:
        fits = "yes" if found.fits else "no"
        return head + memory + f"| {fits} | {found.flops / steps / 1e12:.2f} | - | - | - | - |"
    seconds = plan.times(chip, found)
    each = " | ".join(f"{1e3 * s / steps:.1f}" for s in seconds)
    whole = max(seconds)
    return head + memory + f"| yes | {found.flops / steps / 1e12:.2f} | {each} | {whole:.1f} |"


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("slices", nargs="+")
    parser.add_argument("--mesh", default="data=-1")
    parser.add_argument("--batch", type=int, default=4, help="pictures on the whole slice")
    asked = parser.parse_args()
    print(
        "| network, parameters | slice | mesh | pictures | memory / HBM (GiB) | fits "
        "| TFLOP a step | compute (ms) | HBM (ms) | ICI (ms) | bound on the draw (s) |"
    )
    print("|---|---|---|---:|---:|---|---:|---:|---:|---:|---:|")
    for topology in asked.slices:
        print(row(asked.system, topology, asked.mesh, asked.batch), flush=True)


if __name__ == "__main__":
    sys.exit(main())
