"""What a call costs where the network costs nothing: `python benchmarks/calls.py [--torch PYTHON]`.

50 steps on 64 x 2 numbers with an analytic denoiser, as one compiled call; a compiled scan of the
same arithmetic from a table of coefficients, which is the least that such a call can cost; and the
loop of diffusers' scheduler of the same name. On one thread each; the least of many calls.
"""

import argparse
import os
import subprocess
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
from jax import lax

from diffjax import grids, prior_sample, sample, samplers, schedules
from diffjax.types import Prediction

SHAPE, STEPS, STD, CALLS = (64, 2), 50, 0.5, 300
SCHEDULE = schedules.from_betas(schedules.linear_betas(1000))
ROWS = {"ddim": "DDIMScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler", "euler": None}

DIFFUSERS = f"""
import diffusers, sys, time, torch
torch.set_num_threads(1)

@torch.no_grad()
def run(scheduler, abar):
    x = torch.randn{SHAPE}
    for t in scheduler.timesteps:
        a = abar[t]
        x = scheduler.step((1 - a).sqrt() * x / (a * {STD} ** 2 + 1 - a), t, x).prev_sample

for name in sys.argv[1:]:
    scheduler = getattr(diffusers, name)(num_train_timesteps=1000)
    times = []
    for _ in range(20):
        scheduler.set_timesteps({STEPS})
        began = time.perf_counter()
        run(scheduler, scheduler.alphas_cumprod)
        times.append(time.perf_counter() - began)
    print(min(times))
"""


def denoiser(x, t, cond):
    """E[x0 | x_t] of N(0, STD^2)."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return Prediction(alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * x)


def least(function, *arguments):
    """Seconds of the fastest of many calls of a jitted function."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return min(times)


@jax.jit
def table_scan(x, table):
    """Deterministic DDIM of the Gaussian from (alpha, sigma) of t and of s, as a table."""

    def body(x, row):
        alpha, sigma, alpha_s, sigma_s = row
        x0 = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * x
        return alpha_s * x0 + sigma_s * (x - alpha * x0) / sigma, None

    return lax.scan(body, x, table)[0]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", help="an interpreter that has torch and diffusers")
    asked = parser.parse_args()
    x, ts = prior_sample(jax.random.key(0), SCHEDULE, SHAPE), grids.trailing(SCHEDULE, STEPS)
    named = [name for name in ROWS.values() if name and asked.torch]
    theirs = {}
    if named:
        found = subprocess.check_output([asked.torch, "-c", DIFFUSERS, *named], text=True)
        theirs = dict(zip(named, map(float, found.split()), strict=True))
    print("| 50 steps on 64 x 2 | microseconds | over diffusers |\n|---|---:|---:|")
    for name, other in ROWS.items():
        sampler = getattr(samplers, name)(SCHEDULE)
        run = jax.jit(lambda key, x, ts, s=sampler: sample(key, denoiser, s, x, ts))
        seconds = least(run, jax.random.key(1), x, ts)
        over = f"{seconds / theirs[other]:.3f}" if other in theirs else ""
        print(f"| `{name}` | {1e6 * seconds:.0f} | {over} |")
    t, s = ts[:-1], ts[1:]
    rows = (SCHEDULE.alpha(t), SCHEDULE.sigma(t), SCHEDULE.alpha(s), SCHEDULE.sigma(s))
    seconds = least(table_scan, x, jnp.stack(rows, 1))
    print(f"| the same arithmetic from a table | {1e6 * seconds:.0f} | |")


if __name__ == "__main__":
    sys.exit(main())
