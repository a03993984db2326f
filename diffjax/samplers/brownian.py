"""Noise that is one Brownian path, whatever the grid: finer grids refine the same sample.

The path W is a function of a clock u in [0, 1] and of a key alone. It is found by descending
a binary tree: each node's key is the root's with the node's index folded in, and the midpoint
of an interval of length L given its ends is their mean plus sqrt(L)/2 z (Li et al. 2020, the
virtual Brownian tree). Below the leaves, 2^-depth wide, it is linear.
"""

import jax
import jax.numpy as jnp
from jax import lax

from diffjax.diffusion import sample_keys
from diffjax.samplers.loop import sample
from diffjax.schedules import logsnr
from diffjax.types import (
    Anyshape,
    Array,
    Cond,
    Denoiser,
    Grid,
    Index,
    Keys,
    PRNGKeyArray,
    Sampler,
    Samples,
    Scalar,
    Schedule,
    Time,
)

DEPTH = 24


def brownian(key: PRNGKeyArray, u: Scalar, shape: tuple[int, ...] = (), depth: int = DEPTH):
    """Standard Brownian motion W(u) on [0, 1], with W(0) = 0.

    Args:
      key: the path; the same key gives the same path.
      u: where, in [0, 1]; may be traced.
      shape: of W.
      depth: levels of the tree, at most 30; cost is one normal draw of the shape per level.

    Returns:
      W(u), with variance u (to within 2^-depth).
    """
    u = jnp.asarray(u, float)

    def normal(node):
        return jax.random.normal(jax.random.fold_in(key, node), shape)

    def descend(level, interval):
        node, rest, length, left, right = interval
        middle = (left + right) / 2 + jnp.sqrt(length) / 2 * normal(node)
        up = rest >= 0.5
        left, right = jnp.where(up, middle, left), jnp.where(up, right, middle)
        return 2 * node + up, 2 * rest - up, length / 2, left, right

    whole = (jnp.asarray(1), u, jnp.ones_like(u), jnp.zeros(shape), normal(0))
    _, rest, _, left, right = lax.fori_loop(0, depth, descend, whole)
    return left + rest * (right - left)


def brownian_increment(
    key: PRNGKeyArray, u0: Scalar, u1: Scalar, shape: tuple[int, ...] = (), depth: int = DEPTH
):
    """W(u1) - W(u0): increments of neighbouring intervals add up to that of their union.

    Args:
      key: the path.
      u0: where it begins, in [0, 1].
      u1: where it ends, in [0, 1].
      shape: of W.
      depth: see `brownian`.

    Returns:
      The increment, with variance |u1 - u0|.
    """
    return brownian(key, u1, shape, depth) - brownian(key, u0, shape, depth)


def clock(schedule: Schedule, t: Anyshape | float) -> Anyshape:
    """u = 1/(1 + exp(logsnr/4)): 0 at clean data, 1 at zero SNR, near even in the log-SNR."""
    return jax.nn.sigmoid(-logsnr(schedule, t) / 4)


def interval_noise(
    keys: Keys,
    schedule: Schedule,
    t: Time,
    s: Time,
    x: Samples,
    draws: int = 1,
    inner: Array | None = None,
) -> Array:
    """Standard normal noise (draws, *x.shape) for the step t -> s: increments over sqrt(length).

    Args:
      keys: one per sample.
      schedule: the noise schedule, whose `clock` runs the paths.
      t: later time, a scalar or (B,).
      s: earlier time, t's shape.
      x: gives the shape.
      draws: how many.
      inner: shares of the step (k,) at which the first k draws end, on the path of the next;
        the others have paths of their own. See `Sampler`.

    Returns:
      Noise, independent over disjoint intervals; 0 for an interval of no length.
    """
    high, low = (jnp.broadcast_to(clock(schedule, a), x.shape[:1]) for a in (t, s))
    ends = jnp.zeros(0) if inner is None else inner
    paths = jnp.maximum(jnp.arange(draws) - len(ends), 0)
    shares = jnp.append(ends, jnp.ones(draws))[:draws]

    def draw(key, high, low, path, share):
        low = jnp.where(share < 1, high + share * (low - high), low)
        length = high - low
        key = jax.random.fold_in(key, path)
        increment = brownian_increment(key, low, high, x.shape[1:])
        return increment / jnp.sqrt(jnp.where(length > 0, length, 1))

    each = jax.vmap(jax.vmap(draw, (0, 0, 0, None, None)), (None, None, None, 0, 0))
    return each(keys, high, low, paths, shares).astype(x.dtype)


def along_brownian(
    key: PRNGKeyArray, schedule: Schedule, sampler: Sampler, first: Index = 0
) -> Sampler:
    """The same sampler with noise from Brownian paths, one per sample, in place of the loop's.

    Args:
      key: consumed whole.
      schedule: the noise schedule.
      sampler: any sampler; draws that end within a step are of the path of the whole step,
        and further draws have paths of their own.
      first: index of the first sample, when one draw is made in several batches.

    Returns:
      A sampler without draws, deterministic given the key.
    """

    def step(noise, denoise, x, t, s, state):
        keys = sample_keys(key, x.shape[0], first)
        inner = None if sampler.inner is None else sampler.inner(t, s)
        noise = interval_noise(keys, schedule, t, s, x, sampler.draws, inner)
        return sampler.step(noise, denoise, x, t, s, state)

    return Sampler(sampler.init, step)


def sample_brownian(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    schedule: Schedule,
    x: Array,
    ts: Grid,
    cond: Cond = None,
    first: Index = 0,
) -> Samples:
    """`sample` whose noise is one path per sample, so that a finer grid refines the sample.

    Arguments, result and error are those of `sample`; the schedule's log-SNR runs the paths.
    """
    driven = along_brownian(key, schedule, sampler, first)
    return sample(jax.random.key(0), denoiser, driven, x, ts, cond, first)
