"""One compiled scan against a Python loop: `python benchmarks/loop.py`.

Both draw the same samples with the same jitted step and an analytic denoiser (Gaussian
data), so that the difference is the loop alone. Prints the medians and the median of the
ratios of alternating runs.
"""

import time

import jax
import numpy as np
from tqdm import tqdm

from diffjax import grids, prior_sample, sample, samplers, schedules
from diffjax.diffusion import sample_keys
from diffjax.types import Prediction

SHAPES = ((16, 8, 8, 1), (64, 32, 32, 3))
STD = 0.5
ROUNDS = 7

schedule = schedules.from_betas(schedules.linear_betas(1000))


def denoiser(x, t, cond):
    """E[x0 | x_t] of N(0, STD^2)."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return Prediction(alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * x)


def scan(sampler):
    """The library's loop, compiled whole."""
    return jax.jit(lambda key, x, ts: sample(key, denoiser, sampler, x, ts))


def python_loop(sampler):
    """What a scheduler object does: one jitted step at a time."""

    @jax.jit
    def step(keys, i, x, t, s, state):
        draw = lambda k: jax.random.normal(jax.random.fold_in(k, i), (sampler.draws, *x.shape[1:]))  # noqa: E731
        noise = jax.vmap(draw, out_axes=1)(keys)
        return sampler.step(noise, lambda x, t: denoiser(x, t, None), x, t, s, state)

    def run(key, x, ts):
        keys, state = sample_keys(key, x.shape[0]), sampler.init(x, ts)
        for i in range(len(ts) - 1):
            x, state = step(keys, i, x, ts[i], ts[i + 1], state)
        return x

    return run


def seconds(function, *arguments):
    """Wall time of one call."""
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def main():
    """Print the table."""
    cases = {
        "ancestral, 1000 steps": (samplers.ancestral(schedule), 1000),
        "ddim, 50 steps": (samplers.ddim(schedule), 50),
    }
    print(f"{jax.devices()[0].device_kind}, {ROUNDS} alternating rounds")
    print(f"{'':42}{'scan':>9} {'loop':>9} {'loop/scan':>11}")
    for shape in SHAPES:
        x = prior_sample(jax.random.key(0), schedule, shape)
        for name, (sampler, steps) in cases.items():
            arguments = (jax.random.key(1), x, grids.trailing(schedule, steps))
            a, b, ratio = compare(scan(sampler), python_loop(sampler), arguments)
            print(f"{name + f', batch {shape}':42}{a:8.3f}s {b:8.3f}s {ratio:11.2f}", flush=True)


def compare(one, many, arguments):
    """Median seconds of both, and the median ratio of alternating runs."""
    np.testing.assert_allclose(one(*arguments), many(*arguments), atol=1e-4)
    times = [
        (seconds(one, *arguments), seconds(many, *arguments))
        for _ in tqdm(range(ROUNDS), leave=False)
    ]
    a, b = np.median(times, axis=0)
    return a, b, np.median([loop / scan for scan, loop in times])


if __name__ == "__main__":
    main()
