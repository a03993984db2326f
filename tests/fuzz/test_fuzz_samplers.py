"""Any sampler, schedule, grid, precision and shape: finite and of x's dtype, or a sentence.

A program is compiled once and run on every grid of its number of steps, named and random, since
compiling is nearly all that a case costs. A failure prints its seed.
"""

import inspect
import random
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, ZERO_TERMINAL_SNR

from diffjax import grids, samplers, schedules
from diffjax.errors import InputError
from diffjax.types import Grid, Prediction, Sampler, per_sample

CASES, KNOWN = 1500, 150
SECONDS = 200  # of the processor, so that a busy machine tries as many
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
SHAPES = ((3,), (2, 3), (2, 3, 1), (1, 4, 4, 3), (2, 2, 3, 2, 1))
DTYPES = ("float32", "bfloat16", "float16")


@pytest.fixture(autouse=True)
def no_debugging():
    """A NaN is to be seen in the result; checks of keys double the time to compile."""
    with jax.debug_nans(False), jax.debug_key_reuse(False):
        yield


def gaussian(schedule):
    """The exact denoiser of N(0.7, 0.4^2), finite at alpha 0 and at clean data."""

    def denoiser(x, t, cond):
        alpha, sigma = (per_sample(f(t), x) for f in (schedule.alpha, schedule.sigma))
        return Prediction(0.7 + 0.16 * alpha * (x - 0.7 * alpha) / (0.16 * alpha**2 + sigma**2))

    return denoiser


def noise(rng, schedule, ts, dtype, shape):
    """Normal noise of about the level of the first time, up to 100."""
    x = np.random.default_rng(rng.getrandbits(32)).normal(size=shape)
    return jnp.asarray(x * min(float(schedule.sigma(ts[0])), 100.0)).astype(dtype)


def fault(make, dtype, shape):
    """What is wrong with the sample that `make` makes, or None; an InputError goes through."""
    try:
        out = make()
    except InputError:
        raise
    except Exception as error:
        return repr(error)
    if (out.dtype, out.shape) != (jnp.dtype(dtype), shape):
        return f"{out.dtype} {out.shape}"
    return None if np.all(np.isfinite(np.asarray(out, float))) else "not finite"


def random_grid(rng, schedule, n):
    """n + 1 decreasing times of the schedule: even, spread over scales, crowded, or tied."""
    g, kind = (
        np.random.default_rng(rng.getrandbits(32)),
        rng.choice(["even", "log", "crowd", "tie"]),
    )
    low, high = float(schedule.t_min), float(schedule.t_max)
    if kind == "log":
        ts = np.exp(g.uniform(np.log(low), np.log(high), n + 1))
    elif kind == "crowd":
        ts = g.uniform(low, high) * (1 + 10.0 ** g.uniform(-6, -2) * g.uniform(-1, 1, n + 1))
        ts[0] = high
    else:
        ts = g.uniform(low, high, n + 1)
    ts = np.sort(np.clip(ts, low, high).astype(np.float32))[::-1].copy()
    if kind == "tie" and n > 1:
        ts[n // 2] = ts[n // 2 - 1]
    if rng.random() < 0.7:
        ts[-1] = float(schedules.clean_time(schedule))
    return ts


def grids_of(rng, schedule, n):
    """Name to times: every grid of `diffjax.grids` that has one, and six random ones."""
    found = {f"random {i}": random_grid(rng, schedule, n) for i in range(6)}
    for name, make in GRIDS.items():
        try:
            found[name] = make(schedule, n)
        except InputError:
            found[name] = None
    return found


@pytest.mark.exhaustive
def test_any_grid_as_an_argument(capsys):
    """`jax.jit` does not know the times, and so refuses none: all must give numbers."""
    seed = random.SystemRandom().getrandbits(32)
    rng, began, done, refused, groups = random.Random(seed), time.process_time(), 0, 0, 0
    faults = []
    while done < CASES and time.process_time() - began < SECONDS:
        options = (sorted(MADE), sorted(ALL), range(1, 8), DTYPES, SHAPES)
        name, on, n, dtype, shape = group = tuple(map(rng.choice, options))
        schedule, sampler = ALL[on], MADE[name](ALL[on])

        @jax.jit
        def run(key, x, ts, schedule=schedule, sampler=sampler):
            return samplers.sample(key, gaussian(schedule), sampler, x, ts)

        groups += 1
        for grid, ts in grids_of(rng, schedule, n).items():
            done, refused = done + 1, refused + (ts is None)
            if ts is None:
                continue
            x, ts = noise(rng, schedule, ts, dtype, shape), jnp.asarray(ts, float)
            if wrong := fault(partial(run, jax.random.key(0), x, ts), dtype, shape):
                faults.append(f"group {groups}: {group}, {grid} {ts}: {wrong}")
    with capsys.disabled():
        spent = time.process_time() - began
        print(f"\nseed {seed}: {done} cases of {groups} programs, {refused} refused, {spent:.0f} s")
    assert not faults, f"seed {seed}: " + "\n".join(faults)
    assert done > max(2 * refused, 1000)


@pytest.mark.exhaustive
def test_any_grid_that_is_known(capsys):
    """The times are looked at when the program is made; uint8 is refused."""
    seed = random.SystemRandom().getrandbits(32)
    rng, began, done, refused = random.Random(seed), time.process_time(), 0, 0
    faults = []
    while done < KNOWN and time.process_time() - began < SECONDS:
        options = (sorted(MADE), sorted(ALL), sorted(GRIDS), range(1, 8), (*DTYPES, "uint8"))
        case = (*map(rng.choice, options), rng.choice(SHAPES))
        done += 1
        try:
            if wrong := fault(partial(drawn, rng, *case), *case[4:]):
                faults.append(f"case {done}: {case}: {wrong}")
        except InputError:
            refused += 1
    with capsys.disabled():
        spent = time.process_time() - began
        print(f"\nseed {seed}: {done} cases, {refused} refused, {spent:.0f} s")
    assert not faults, f"seed {seed}: " + "\n".join(faults)
    assert done > 2 * refused


def drawn(rng, name, on, grid, n, dtype, shape):
    """A sample, or an InputError of the grid, the sampler or the loop."""
    schedule = ALL[on]
    sampler, ts = MADE[name](schedule), GRIDS[grid](schedule, n)
    x = noise(rng, schedule, ts, dtype, shape)
    run = jax.jit(lambda key, x: samplers.sample(key, gaussian(schedule), sampler, x, ts))
    return run(jax.random.key(0), x)
