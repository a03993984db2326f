"""The one loop of every sampler: a `lax.scan` over the intervals of a grid.

Noise is drawn here, one key per sample (its index folded in, then the step), so that a
sample depends on the key and its index alone: not on the batch it is in, nor on how many
devices share the batch. Wrap calls in `jax.jit` with params, key, grid, scales and eta as
arguments; only another number of steps compiles again.
"""

import jax
import jax.numpy as jnp
from jax import lax

from diffjax.diffusion import sample_keys, step_noise
from diffjax.errors import InputError
from diffjax.samplers.checks import (
    bind,
    check_grid,
    check_noise,
    check_start,
    distinct,
    known,
    speak,
    working,
    working_grid,
)
from diffjax.samplers.noise import draw_noise
from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    Grid,
    Index,
    Path,
    Prediction,
    PRNGKeyArray,
    Sampler,
    Samples,
)


def scan(key, denoiser, sampler, x, ts, cond, first, keep=lambda x: None, noise=None):
    """Advance x over every interval of ts; also returns keep(x) after each step.

    A traced grid may repeat a time, which no one could refuse: the step between is none.
    """
    keys = sample_keys(key, x.shape[0], first)
    denoise = bind(denoiser, cond)
    check_noise(noise, sampler, x, ts)

    def draw(keys, step, x):  # draws of weight 0 are not made
        if sampler.stochastic:
            return step_noise(keys, step, sampler.draws, x)
        return jnp.zeros((sampler.draws, *x.shape), x.dtype)

    def body(carry, interval):
        x, state = carry
        step, t, s, given = interval
        drawn = given if given is not None else draw(keys, step, x)
        after = sampler.step(draw_noise(sampler, drawn, t, s), denoise, x, t, s, state)
        if not known(ts):
            after = jax.tree.map(lambda new, old: jnp.where(t == s, old, new), after, carry)
        return after, keep(after[0])

    intervals = (jnp.arange(ts.shape[0] - 1), ts[:-1], ts[1:], noise)
    start = x, sampler.init(x, ts if known(ts) else distinct(ts))
    (x, _), kept = lax.scan(body, start, intervals)
    return x, kept


def _run(key, denoiser, sampler, x, ts, cond, first, keep=lambda x: None, noise=None):
    """`scan` in working precision, from arguments that were looked at."""
    ts, x = working_grid(ts), working(x)
    check_grid(ts)
    check_start(denoiser, x, ts, cond)
    noise = None if noise is None else working(noise)
    return scan(key, denoiser, sampler, x, ts, cond, first, keep, noise)


def sample(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    x: Array,
    ts: Grid,
    cond: Cond = None,
    first: Index = 0,
    noise: Array | None = None,
) -> Samples:
    """Draw samples: take x from time ts[0] to ts[-1] in len(ts) - 1 steps.

    Args:
      key: consumed whole; a deterministic sampler ignores it.
      denoiser: (x_t, t, cond) -> Prediction, guidance included.
      sampler: one of `diffjax.samplers`.
      x: noise at ts[0], from `prior_sample` with another key: real numbers of any precision.
        The run is in JAX's default precision, and the result has x's dtype again.
      ts: n + 1 decreasing times, from `diffjax.grids`.
      cond: condition of each sample, or None.
      first: index of the first sample, when one draw is made in several batches.
      noise: independent standard normal (n, sampler.draws, *x.shape) in place of the key's, such
        as the maps of an inversion; None to draw it.

    Returns:
      x at ts[-1].

    Raises:
      InputError: ts is not a decreasing grid of at least one step within the schedule. x is not
        real. noise is of another shape. The denoiser is not finite at the first time, such as one
        of eps at a zero SNR.
    """
    return _run(key, denoiser, sampler, x, ts, cond, first, noise=noise)[0].astype(x.dtype)


def sample_path(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    x: Array,
    ts: Grid,
    cond: Cond = None,
    first: Index = 0,
    noise: Array | None = None,
) -> Path:
    """Like `sample`, and keeps x at every time of the grid.

    Returns:
      x at each of ts (n + 1, B, ...), the given x first.
    """

    def keep(state):
        return state.astype(x.dtype)

    _, path = _run(key, denoiser, sampler, x, ts, cond, first, keep, noise)
    return jnp.concatenate([jnp.asarray(x)[None], path])


def sample_truncated(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    x: Array,
    ts: Grid,
    cond: Cond = None,
    first: Index = 0,
    noise: Array | None = None,
) -> Samples:
    """Stop at a noisy ts[-1] and return x0_hat there, the "denoise" of Song et al. 2021.

    Arguments as for `sample`, with sigma(ts[-1]) > 0.

    Returns:
      E[x0 | x at ts[-1]], as the denoiser has it: len(ts) denoiser calls with a first-order
      sampler.
    """
    x_t, _ = _run(key, denoiser, sampler, x, ts, cond, first, noise=noise)
    return bind(denoiser, cond)(x_t, working_grid(ts)[-1]).x0.astype(x.dtype)


def encode(
    denoiser: Denoiser,
    sampler: Sampler,
    x: Array,
    ts: Grid,
    cond: Cond = None,
) -> Samples:
    """Run a deterministic sampler backwards, from data to its noise: DDIM inversion.

    Song et al. 2021 (DDIM), section 5.4. `sample` with the same denoiser, sampler and grid
    takes the result back to x up to the solver's error.

    Args:
      denoiser: (x_t, t, cond) -> Prediction.
      sampler: a deterministic one: `ddim` with eta 0, `heun`, ...
      x: data, taken as the sample at ts[-1].
      ts: a decreasing grid with sigma(ts[-1]) > 0, e.g. `grids.karras(schedule, n)[:-1]`.
      cond: condition of each sample, or None.

    Returns:
      The sample at ts[0].

    Raises:
      InputError: the sampler is stochastic, or the known grid is not decreasing or ends at
        clean data. Where the grid is not known, a result that is not finite warns.
    """
    if sampler.draws and sampler.stochastic:
        raise InputError(
            "encode needs a deterministic sampler, and the draws of this one change its result; "
            "use heun, ddim with eta 0, or another sampler with its noise at a known 0."
        )
    ts, start = working_grid(ts), working(x)
    check_grid(ts)
    x_T, _ = scan(jax.random.key(0), denoiser, sampler, start, ts[::-1], cond, 0)
    speak(
        jnp.all(jnp.isfinite(x_T)),
        "the code of encode is not finite; its grid must end above clean data, such as "
        "grids.karras(schedule, n)[:-1], and x must be finite.",
    )
    return x_T.astype(x.dtype)


def count_calls(sampler: Sampler, ts: Grid) -> int:
    """Denoiser calls of a run (NFE), by counting those of one that is not compiled.

    Args:
      sampler: one of `diffjax.samplers`.
      ts: n + 1 decreasing times; some samplers spend less in the first step or the last.

    Returns:
      The number of calls.

    """
    calls = 0

    def denoiser(x, t, cond):
        nonlocal calls
        calls += 1
        return Prediction(jnp.zeros_like(x))

    with jax.disable_jit():
        key, x = jax.random.key(0), jnp.ones((1, 1))
        scan(key, denoiser, sampler, x, working_grid(ts), None, 0)
    return calls
