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
from diffjax.samplers.checks import check_grid, check_start
from diffjax.types import (
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


def _scan(key, denoiser, sampler, x, ts, cond, first, keep):
    """Advance x over every interval of ts; also returns keep(x) after each step."""
    keys = sample_keys(key, x.shape[0], first)

    def denoise(x, t):
        return denoiser(x, t, cond)

    def body(carry, interval):
        x, state = carry
        step, t, s = interval
        noise = step_noise(keys, step, sampler.draws, x)
        x, state = sampler.step(noise, denoise, x, t, s, state)
        return (x, state), keep(x)

    intervals = (jnp.arange(ts.shape[0] - 1), ts[:-1], ts[1:])
    (x, _), kept = lax.scan(body, (x, sampler.init(x, ts)), intervals)
    return x, kept


def sample(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    x: Samples,
    ts: Grid,
    cond: Cond = None,
    first: Index = 0,
) -> Samples:
    """Draw samples: take x from time ts[0] to ts[-1] in len(ts) - 1 steps.

    Args:
      key: consumed whole; a deterministic sampler ignores it.
      denoiser: (x_t, t, cond) -> Prediction, guidance included.
      sampler: one of `diffjax.samplers`.
      x: noise at ts[0], from `prior_sample` with another key.
      ts: n + 1 decreasing times, from `diffjax.grids`.
      cond: condition of each sample, or None.
      first: index of the first sample, when one draw is made in several batches.

    Returns:
      x at ts[-1].

    Raises:
      InputError: ts is not a decreasing grid of at least one step, or the denoiser is not
        finite at the first, such as one of eps at a zero SNR.
    """
    ts = jnp.asarray(ts)
    check_grid(ts)
    check_start(denoiser, x, ts, cond)
    return _scan(key, denoiser, sampler, x, ts, cond, first, keep=lambda x: None)[0]


def sample_path(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    x: Samples,
    ts: Grid,
    cond: Cond = None,
    first: Index = 0,
) -> Path:
    """Like `sample`, and keeps x at every time of the grid.

    Returns:
      x at each of ts (n + 1, B, ...), the given x first.
    """
    ts = jnp.asarray(ts)
    check_grid(ts)
    check_start(denoiser, x, ts, cond)
    _, path = _scan(key, denoiser, sampler, x, ts, cond, first, keep=lambda x: x)
    return jnp.concatenate([x[None], path])


def sample_truncated(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    x: Samples,
    ts: Grid,
    cond: Cond = None,
    first: Index = 0,
) -> Samples:
    """Stop at a noisy ts[-1] and return x0_hat there, the "denoise" of Song et al. 2021.

    Arguments as for `sample`, with sigma(ts[-1]) > 0.

    Returns:
      E[x0 | x at ts[-1]], as the denoiser has it: len(ts) denoiser calls with a first-order
      sampler.
    """
    x = sample(key, denoiser, sampler, x, ts, cond, first)
    return denoiser(x, jnp.asarray(ts)[-1], cond).x0


def encode(
    denoiser: Denoiser,
    sampler: Sampler,
    x: Samples,
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
    """
    ts = jnp.asarray(ts)
    check_grid(ts)
    silent = sampler._replace(
        step=lambda noise, *rest: sampler.step(jnp.zeros_like(noise), *rest),
    )
    return _scan(jax.random.key(0), denoiser, silent, x, ts[::-1], cond, 0, lambda x: None)[0]


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
        _scan(key, denoiser, sampler, x, jnp.asarray(ts), None, 0, keep=lambda x: None)
    return calls
