"""Where the time of a training step goes: `python benchmarks/step_profile.py [dit|ddpm]`.

A step of benchmarks/networks.py on one thread of a CPU, under JAX's profiler. Every operation of
the compiled program is put down to the part of the step that it was traced in, and to its kind; a
fusion counts as its last operation. Products stand with the rate that they reach together.
"""

import argparse
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import jaxlib
from jax.profiler import ProfileData
from networks import training

from diffjax import cpu, models
from diffjax.plan.flops import matmul_flops

NETWORKS = {
    "dit": (lambda: models.DiT(width=384, depth=12, heads=6), (4, 32, 32, 4)),
    "ddpm": (models.ddpm_cifar10, (8, 32, 32, 3)),
}
INSTRUCTION = re.compile(r"%([\w.\-]+) = \(?[a-z0-9]+\[[^=]*? ([\w\-]+)\((.*)")
PARTS = {  # the first that an operation's name holds
    "checks for finite numbers": "/finite/",
    "averages": "/averages/",
    "optimizer and clipping": "/optimizer/",
    "backward": "transpose(jvp(",
    "forward": "jvp(",
}
KINDS = {
    "attention, its softmax and products fused with it": "attention",
    "norms": "norm",
    "sums": "reduce_",
}


def compiled(name):
    """(one compiled step, its arguments, FLOPs of its products)."""
    make, shape = NETWORKS[name]
    module, x, labels = make(), jnp.ones(shape), jnp.arange(shape[0])
    cond = {"label": labels} if hasattr(module, "depth") else {}
    params = jax.jit(module.init)(jax.random.key(0), x, jnp.zeros(shape[0]), cond)["params"]
    step, init = training(module)
    given = jax.jit(init)(params), jax.random.key(0), {"x": x, **cond}
    traced = jax.jit(step, donate_argnums=0).trace(*given)
    return traced.lower().compile(), given, matmul_flops(traced.jaxpr.jaxpr)


def seconds_of(step, state, key, batch):
    """Seconds of each instruction of one step."""
    for _ in range(2):
        state, _ = jax.block_until_ready(step(state, key, batch))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(step(state, key, batch))
        (file,) = Path(folder).rglob("*.xplane.pb")
        found = Counter()
        for plane in ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    if name := dict(event.stats).get("hlo_op"):
                        found[name] += event.duration_ns / 1e9
    return found


def place(kind, rest):
    """(part of the step, kind of operation) of an instruction."""
    named = re.search(r'op_name="([^"]*)"', rest)
    name = named[1] if named else ""
    if kind == "copy":
        return "copies of arguments and results", ""
    part = next((part for part, sign in PARTS.items() if sign in name), "the rest")
    if kind in ("dot", "convolution", "custom-call") or "onednn" in rest:
        return part, "products and convolutions"
    if part not in ("forward", "backward"):
        return part, ""
    return part, next((k for k, sign in KINDS.items() if sign in name), "element by element")


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", choices=NETWORKS, nargs="?", default="dit")
    asked = parser.parse_args()
    cpu.keep_freed_memory()  # as train.py does
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    os.environ["XLA_FLAGS"] = cpu.xla_flags(os.environ, jaxlib.__version__)
    step, given, flops = compiled(asked.network)
    places = {m[1]: place(m[2], m[3]) for m in INSTRUCTION.finditer(step.as_text())}
    shares, taken = Counter(), seconds_of(step, *given)
    for name, seconds in taken.items():
        if name in places:
            shares[places[name]] += seconds
    total = sum(shares.values())
    products = sum(s for (_, kind), s in shares.items() if kind.startswith("products"))
    print(f"{1e3 * total:.0f} ms, products at {flops / products / 1e9:.0f} GFLOP/s\n")
    print("| part | kind | ms | share |\n|---|---|---:|---:|")
    for (part, kind), spent in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"| {part} | {kind} | {1e3 * spent:.1f} | {spent / total:.1%} |")


if __name__ == "__main__":
    main()
