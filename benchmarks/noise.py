"""What the draws of a step cost: `python benchmarks/noise.py [--torch PYTHON]`.

1,000 ancestral steps of 16 x 32 x 32 x 3 numbers with an analytic denoiser, so that only the loop
and its draws cost anything: this library's, with the step's normals as `diffjax.normals` computes
them on a CPU; the same with `jax.random.normal`, whose numbers are the same; and the loop of
diffusers' DDPMScheduler, by an interpreter that has torch and diffusers. On one thread each, the
medians of runs that alternate, and their ratios.
"""

import argparse
import os
import subprocess
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import numpy as np

from diffjax import grids, normals, prior_sample, sample, samplers, schedules
from diffjax.types import Prediction

SHAPE, STEPS, STD, ROUNDS = (16, 32, 32, 3), 1000, 0.5, 5

DIFFUSERS = f"""
import sys, time, torch
from diffusers import DDPMScheduler
torch.set_num_threads(1)
scheduler = DDPMScheduler(num_train_timesteps={STEPS}, clip_sample=False)
scheduler.set_timesteps({STEPS})
abar = scheduler.alphas_cumprod

@torch.no_grad()
def run():
    x = torch.randn(16, 3, 32, 32)
    for t in scheduler.timesteps:
        a = abar[t]
        eps = (1 - a).sqrt() * x / (a * {STD} ** 2 + 1 - a)
        x = scheduler.step(eps, t, x).prev_sample
    return x

run()
for line in sys.stdin:
    began = time.perf_counter()
    run()
    print(time.perf_counter() - began, flush=True)
"""


def ours(schedule):
    """The whole draw as one compiled call of a key."""

    def denoiser(x, t, cond):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Prediction(alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * x)

    @jax.jit
    def run(key, ts):
        prior_key, key = jax.random.split(key)
        x = prior_sample(prior_key, schedule, SHAPE)
        return sample(key, denoiser, samplers.ancestral(schedule), x, ts)

    ts = grids.trailing(schedule, STEPS)
    return lambda seed: jax.block_until_ready(run(jax.random.key(seed), ts))


def timed(function, *arguments):
    """Wall seconds of a call."""
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", help="an interpreter that has torch and diffusers")
    asked = parser.parse_args()
    schedule = schedules.from_betas(schedules.linear_betas(STEPS))
    fast = ours(schedule)
    first = fast(0)
    normals._written_out = lambda keys, step, shape: normals._plain(
        keys, step, shape, np.dtype("float32")
    )
    plain = ours(schedule)
    assert np.array_equal(first, plain(0)), "both draw the same numbers"
    rows = {"diffjax": lambda: timed(fast, 1), "by `jax.random.normal`": lambda: timed(plain, 1)}
    if asked.torch:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([asked.torch, "-c", DIFFUSERS], **pipes)

        def theirs():
            print(file=process.stdin, flush=True)
            return float(process.stdout.readline())

        rows["diffusers, DDPMScheduler"] = theirs
    times = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, row in rows.items():
            times[name].append(row())
    last = list(times)[-1]
    print(f"| {STEPS} steps | seconds | over {last} |\n|---|---:|---:|")
    for name, found in times.items():
        ratio = np.median(np.array(found) / times[last])
        print(f"| {name} | {np.median(found):.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
