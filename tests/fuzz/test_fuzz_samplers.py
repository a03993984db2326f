"""Any sampler, schedule, grid, precision and shape: finite and of x's dtype, or a sentence."""

import inspect
import random
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, ZERO_TERMINAL_SNR

from diffjax import grids, samplers, schedules
from diffjax.errors import InputError
from diffjax.types import Grid, Prediction, Sampler, per_sample

SECONDS = 90
CASES = 400
ALL = SCHEDULES | {
    "zero terminal SNR": ZERO_TERMINAL_SNR,
    "rectified flow": schedules.rectified_flow(),
    "one beta": schedules.from_betas(np.array([0.5])),
}
MADE = {
    name: make
    for name, make in vars(samplers).items()
    if hasattr(make, "info") and inspect.signature(make).return_annotation is Sampler
}
GRIDS = {
    name: make
    for name, make in vars(grids).items()
    if inspect.isfunction(make) and inspect.signature(make).return_annotation == Grid
}
# One of each rank: operations compile once for each shape.
SHAPES = ((3,), (2, 3), (2, 3, 1), (1, 4, 4, 3), (2, 2, 3, 2, 1))
DTYPES = ("float32", "bfloat16", "float16", "uint8")


def gaussian(schedule):
    """The exact denoiser of N(0.7, 0.4^2), finite at alpha 0 and at clean data."""

    def denoiser(x, t, cond):
        alpha, sigma = (per_sample(f(t), x) for f in (schedule.alpha, schedule.sigma))
        return Prediction(0.7 + 0.16 * alpha * (x - 0.7 * alpha) / (0.16 * alpha**2 + sigma**2))

    return denoiser


def result(rng, sampler, schedule, grid, steps, dtype, shape):
    """A sample, or None where the library refuses by a sentence."""
    x = jnp.asarray(np.random.default_rng(rng.getrandbits(32)).normal(size=shape) * 3)
    schedule = ALL[schedule]
    try:
        make, ts = MADE[sampler](schedule), GRIDS[grid](schedule, steps)
        x = (x * min(float(schedule.sigma(ts[0])), 100.0)).astype(dtype)
        run = jax.jit(lambda key, x: samplers.sample(key, gaussian(schedule), make, x, ts))
        return run(jax.random.key(0), x)
    except InputError:
        return None


@pytest.mark.exhaustive
def test_any_combination(capsys):
    seed = random.SystemRandom().getrandbits(32)
    rng, end, done, refused = random.Random(seed), time.monotonic() + SECONDS, 0, 0
    with jax.debug_nans(False):
        while done < CASES and time.monotonic() < end:
            options = (sorted(MADE), sorted(ALL), sorted(GRIDS), range(1, 8), DTYPES, SHAPES)
            case = tuple(map(rng.choice, options))
            out = result(rng, *case)
            done, refused = done + 1, refused + (out is None)
            if out is None:
                continue
            said = f"seed {seed}, case {done}: {case}"
            assert (out.dtype, out.shape) == (jnp.dtype(case[4]), case[5]), said
            assert np.all(np.isfinite(np.asarray(out, float))), said
    with capsys.disabled():
        print(f"\nseed {seed}: {done} cases, {refused} refused")
    assert done > refused
