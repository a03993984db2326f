"""Guided sampling beside diffusers' guiders: `python benchmarks/guidance.py [--batch 1]`.

    pip install -e ".[bench-torch]" && python benchmarks/guidance.py

One class-conditional U-Net (32x32, 3 channels) with the same weights on both sides, 20 steps of
DDIM from the same noise, on one thread: classifier-free guidance, guidance in an interval of
steps, and adaptive projected guidance. Prints processor seconds, the least of three runs taken
by turns, the evaluations of the network per sample, and how far the results are apart.
"""

import argparse
import os
import tempfile
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["OMP_NUM_THREADS"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeGuidance

from diffjax import grids, guidance, pretrained, sample, samplers, schedules
from diffjax.parameterization import at_steps, make_denoiser, predict_eps

STEPS, SCALE, LIMIT, NULL = 20, 4.0, 15.0, 10
FIRST, LAST = 0.2, 0.7  # share of the steps that is guided in an interval
CONFIG = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (64, 128),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "num_class_embeds": NULL + 1,
    "norm_num_groups": 32,
}


def theirs(net, guider, x, labels):
    """diffusers' own loop: its guider asks for one batch per condition."""
    scheduler = DDIMScheduler(timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(STEPS)
    calls = 0
    for i, t in enumerate(scheduler.timesteps):
        guider.set_state(i, STEPS, t)
        batches = guider.prepare_inputs({"label": (labels, torch.full_like(labels, NULL))})
        for batch in batches:
            batch.noise_pred = net(x, t, batch.label, return_dict=False)[0]
            calls += 1
        x = scheduler.step(guider(batches).pred, t, x).prev_sample
    return x, calls


def ours(network, schedule, guide, ts):
    """(params, x, label) -> samples, compiled; `guide` makes the denoiser."""

    @jax.jit
    def draw(params, x, label):
        denoiser = make_denoiser(network, params, schedule, at_steps(predict_eps, 1000))
        sampler = samplers.ddim(schedule)
        return sample(jax.random.key(0), guide(denoiser), sampler, x, ts, {"label": label})

    return draw


def guides(schedule, ts):
    """Our rule and their guider, by name."""
    null = {"label": NULL}
    levels = schedule.sigma(ts) / schedule.alpha(ts)
    first, last = int(FIRST * STEPS), int(LAST * STEPS)
    high, low = (float(levels[i] * 1.0001) for i in (first, last))

    def plain(denoiser):
        return guidance.classifier_free(denoiser, SCALE, null)

    def within(denoiser):
        return guidance.interval(plain(denoiser), denoiser, schedule, low, high)

    def projected(denoiser):
        return guidance.adaptive_projected(
            denoiser, SCALE, null, schedule, eta=0.0, limit=LIMIT, domain=predict_eps
        )

    apg = AdaptiveProjectedGuidance(
        guidance_scale=SCALE, adaptive_projected_guidance_rescale=LIMIT, eta=0.0
    )
    return {
        "none": (lambda denoiser: denoiser, ClassifierFreeGuidance(1.0)),
        "classifier-free": (plain, ClassifierFreeGuidance(SCALE)),
        f"in steps {first} to {last - 1}": (
            within,
            ClassifierFreeGuidance(SCALE, start=FIRST, stop=LAST),
        ),
        "adaptive projected": (projected, apg),
    }


def counted(network):
    """The network, and a list to which each call adds the rows that it was given."""
    rows = []

    def called(params, x, *rest):
        jax.debug.callback(lambda n=x.shape[0]: rows.append(n))
        return network(params, x, *rest)

    return called, rows


def seconds(*runs):
    """The least processor seconds of each, taken by turns."""
    spent = [[] for _ in runs]
    for _ in range(3):
        for run, own in zip(runs, spent, strict=True):
            began = time.process_time()
            run()
            own.append(time.process_time() - began)
    return [min(own) for own in spent]


def main(batch):
    """Build the network once, and print a row for each guidance."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = UNet2DModel(**CONFIG).eval()
    with tempfile.TemporaryDirectory() as folder:
        net.save_pretrained(folder)
        found = pretrained.load(folder)
    network, rows = counted(found.network)
    params = jax.device_put(found.params)
    schedule = schedules.from_betas(schedules.linear_betas())
    ts = grids.trailing(schedule, STEPS)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((batch, 32, 32, 3)).astype(np.float32)
    labels = np.arange(batch) % NULL
    x, label = jnp.asarray(z * float(schedule.sigma(ts[0]))), jnp.asarray(labels)
    their_x, their_label = torch.tensor(np.asarray(x)).permute(0, 3, 1, 2), torch.tensor(labels)
    print(f"jax {jax.__version__}, torch {torch.__version__}, batch {batch}, one thread")
    print("| guidance | diffjax | diffusers | ratio | evaluations | theirs | apart |")
    print("|---|---|---|---|---|---|---|")
    for name, (guide, guider) in guides(schedule, ts).items():
        draw = ours(network, schedule, guide, ts)
        rows.clear()
        mine = np.asarray(draw(params, x, label))
        jax.effects_barrier()
        own = sum(rows) / batch
        with torch.no_grad():
            yours, calls = theirs(net, guider, their_x, their_label)
            apart = np.abs(mine - yours.permute(0, 2, 3, 1).numpy()).max()
            a, b = seconds(
                lambda draw=draw: draw(params, x, label).block_until_ready(),
                lambda guider=guider: theirs(net, guider, their_x, their_label),
            )
        spent = f"{a:.2f} s | {b:.2f} s | {a / b:.2f}"
        print(f"| {name} | {spent} | {own:.0f} | {calls} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    main(parser.parse_args().batch)
