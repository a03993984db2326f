"""A small Stable Diffusion against diffusers, side by side: `python benchmarks/pipelines.py`.

The golden system of `tests/golden/pipelines` (sd_ddim) with the same weights, from the same noise
and the same encoded prompts: 20 guided steps of DDIM and the decoding. The contenders take turns
in one process on one thread, CPU time is counted, and a ratio is of neighbours.

    pip install -e ".[bench-torch]" && python benchmarks/pipelines.py

transformers is not needed: the text encoder runs once, here, for all.
"""

import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

STEPS, SCALE, ROUNDS, BATCHES = 20, 7.5, 9, (1, 4)
ROOT = Path(__file__).parents[1]


def ours(folder, num):
    """(noise (B, h, w, C) -> images), and the encoded prompts."""
    import jax
    import numpy as np

    from diffjax import conditioning
    from diffjax.experiment import guided
    from diffjax.pretrained.systems import open_system
    from diffjax.samplers import sample

    system = open_system(folder)
    model, usual = system.model, system.model.sampling
    params = jax.tree.map(np.asarray, system.leaves())
    frozen = {name: jax.tree.map(np.asarray, load()) for name, load in model.frozen.items()}
    raw = system.raw(["a photo of a cat"] * num, ["blurry"] * num)
    encode = jax.jit(lambda f: conditioning.encode(model.conditions, f, raw))
    null = jax.jit(lambda f: conditioning.nulls(model.conditions, f, raw))
    cond, nulls, ts = encode(frozen), null(frozen), usual.grid(model.schedule, STEPS)

    @jax.jit
    def draw(params, frozen, cond, nulls, x):
        denoiser = guided(model, params, SCALE, nulls, frozen)
        x = sample(jax.random.key(0), denoiser, usual.sampler(model.schedule), x, ts, cond)
        return model.codec.decode(frozen, x)

    text = np.concatenate([np.asarray(nulls["tokens"]), np.asarray(cond["tokens"])])
    vae = {"vae": frozen["vae"]}
    return lambda z: np.asarray(draw(params, vae, cond, nulls, z)), text


def theirs(folder, text, compiled):
    """The loop of diffusers' pipeline: noise (B, C, h, w) -> images, under `text` (2 B, L, D)."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    def load(kind, part):
        network = kind.from_config(kind.load_config(folder / part))
        from safetensors.torch import load_file

        network.load_state_dict(load_file(folder / part / "model.safetensors"))
        return network.eval()

    unet, vae = load(UNet2DConditionModel, "unet"), load(AutoencoderKL, "vae")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    forward, decode = unet.forward, vae.decode
    if compiled:
        forward, decode = torch.compile(forward), torch.compile(decode)
    text = torch.tensor(text)

    @torch.no_grad()
    def draw(z):
        scheduler.set_timesteps(STEPS)
        x = z * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([x, x]), t)
            out = forward(both, t, encoder_hidden_states=text, return_dict=False)[0]
            uncond, cond = out.chunk(2)
            x = scheduler.step(uncond + SCALE * (cond - uncond), t, x, return_dict=False)[0]
        return decode(x / vae.config.scaling_factor, return_dict=False)[0].numpy()

    return draw


def timed(function):
    """Seconds of CPU of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def row(folder, num):
    """A line of the table: seconds here, and over each of the others."""
    import numpy as np
    import torch

    draw, text = ours(folder, num)
    z = np.random.default_rng(0).standard_normal((num, 8, 8, 4)).astype(np.float32)
    contenders = {"diffjax": partial(draw, z)}
    wanted, turned = draw(z), torch.tensor(np.moveaxis(z, -1, 1).copy())
    for name, compiled in {"eager": False, "compiled": True}.items():
        other = partial(theirs(folder, text, compiled), turned)
        found = np.moveaxis(other(), 1, -1)
        assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max(), name
        contenders[name] = other
    for function in contenders.values():
        function()
    seconds = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, function in contenders.items():
            seconds[name].append(timed(function))
    cells = [f"{1000 * statistics.median(seconds['diffjax']):.0f}"]
    for name in ("eager", "compiled"):
        pairs = zip(seconds["diffjax"], seconds[name], strict=True)
        cells.append(f"{statistics.median(a / b for a, b in pairs):.2f}")
    return f"| {num} | " + " | ".join(cells) + " |"


def main():
    """Print the table."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    from systems import write_system

    torch.set_num_threads(1)
    folder = write_system(Path(tempfile.mkdtemp()) / "sd", "sd_ddim")
    print("| images | diffjax, ms | over eager | over compiled |\n|---|---|---|---|")
    for num in BATCHES:
        print(row(folder, num), flush=True)


if __name__ == "__main__":
    main()
