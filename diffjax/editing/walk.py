"""The scan of editing: over given times, which may go back up, with noise given or drawn."""

import jax.numpy as jnp

from diffjax.samplers.loop import scan
from diffjax.types import Array, Cond, Denoiser, Index, PRNGKeyArray, Sampler, Samples


def walk(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    x: Samples,
    ts: Array,
    cond: Cond = None,
    noise: Array | None = None,
    first: Index = 0,
) -> Samples:
    """Take x through the times ts, as `sample`, without asking that they fall.

    Args:
      key: consumed whole; not used where the noise is given.
      denoiser: (x_t, t, cond) -> Prediction.
      sampler: its step is given t and s, where s may be above t if it can do that.
      x: the sample at ts[0].
      ts: n + 1 times.
      cond: condition of each sample, or None.
      noise: standard normal (n, draws, B, ...), or None to draw it as `sample` does.
      first: index of the first sample, when one draw is made in several batches.

    Returns:
      x at ts[-1].
    """
    return scan(key, denoiser, sampler, x, jnp.asarray(ts), cond, first, noise=noise)[0]
