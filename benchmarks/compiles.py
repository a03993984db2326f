"""What a program costs before it runs: `python benchmarks/compiles.py [BEGINNING OF A ROW ...]`.

The programs of benchmarks/networks.py, each in two new processes that share one compilation cache:
the first finds it empty, the second finds what the first compiled. Seconds of wall time, on all
cores: to trace the function and lower it, and to get the compiled program. Nothing is computed.
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial

HEAD = "| program | traced, s | compiled, s | found in the cache, s | of the time to compile |"


def shapes_of(module, shape, labels):
    """(parameters, x, t, condition) of a module, as shapes."""
    import jax
    import jax.numpy as jnp

    x, t = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:1], jnp.float32)
    cond = {"label": jax.ShapeDtypeStruct(shape[:1], jnp.int32)} if labels else None
    params = jax.eval_shape(module.init, jax.random.key(0), x, t, cond)["params"]
    return params, x, t, cond


def forward(module, *given):
    """A forward pass, lowered."""
    import jax

    return jax.jit(lambda p, *a: module.apply({"params": p}, *a)).lower(*given)


def train(module, params, x, t, cond):
    """A training step, lowered."""
    import jax
    from networks import training

    step, init = training(module)
    state, key = jax.eval_shape(init, params), jax.eval_shape(jax.random.key, 0)
    return jax.jit(step, donate_argnums=0).lower(state, key, {"x": x, **(cond or {})})


def draw(module, params, x, t, cond):
    """A draw of 50 steps, lowered."""
    import jax
    from networks import drawing

    drawn, ts = drawing(module, 50)
    return jax.jit(drawn).lower(params, x, ts, cond)


def dit(**how):
    """(DiT-S/2, four latents of 32x32, whether it has labels)."""
    from diffjax import models

    return models.DiT(width=384, depth=12, heads=6, **how), (4, 32, 32, 4), True


def ddpm(**how):
    """DDPM's U-Net on 8 pictures of 32x32, likewise."""
    from diffjax import models

    return models.ddpm_cifar10().clone(**how), (8, 32, 32, 3), False


def small():
    """A U-Net of two levels on one picture of 32x32, likewise."""
    from diffjax import models

    return models.ddpm_unet(channels=32, multipliers=(1, 2)), (1, 32, 32, 3), False


ROWS = {
    "small U-Net, 50 steps of DDIM": (draw, small),
    "DiT-S/2 forward": (forward, dit),
    "DiT-S/2 forward, scan": (forward, partial(dit, scan_blocks=True)),
    "DiT-S/2, 50 steps of DDIM": (draw, dit),
    "DiT-S/2, 50 steps of DDIM, scan": (draw, partial(dit, scan_blocks=True)),
    "DiT-S/2 train step": (train, dit),
    "DiT-S/2 train step, scan": (train, partial(dit, scan_blocks=True)),
    "DDPM CIFAR-10 forward": (forward, ddpm),
    "DDPM CIFAR-10 forward, scan": (forward, partial(ddpm, scan_blocks=True)),
    "DDPM CIFAR-10 train step": (train, ddpm),
}


def measured(name, cache):
    """(seconds to trace and lower, seconds until it is compiled), in this process."""
    import os

    import jaxlib

    from diffjax import cpu

    os.environ["XLA_FLAGS"] = cpu.xla_flags(os.environ, jaxlib.__version__)  # as train.py does
    import jax

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    lower, make = ROWS[name]
    module, *given = make()
    given = shapes_of(module, *given)
    began = time.perf_counter()
    lowered = lower(module, *given)
    traced = time.perf_counter()
    lowered.compile()
    return traced - began, time.perf_counter() - traced


def main(beginnings):
    """Print the table."""
    from tqdm import tqdm

    names = [name for name in ROWS if not beginnings or name.startswith(tuple(beginnings))]
    print(f"{HEAD}\n|---|---:|---:|---:|---:|", flush=True)
    for name in tqdm(names, leave=False):
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, __file__, "--in-this-process", name, cache]
            (traced, cold), (_, warm) = (
                json.loads(subprocess.check_output(command)) for _ in range(2)
            )
        tqdm.write(f"| {name} | {traced:.1f} | {cold:.1f} | {warm:.2f} | {warm / cold:.0%} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-this-process"]:
        print(json.dumps(measured(*sys.argv[2:])))
    else:
        main(sys.argv[1:])
