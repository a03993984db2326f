"""A peak learning rate that is a number in the optimizer's state, not a constant of the program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffjax.training.state import TrainState
from diffjax.types import Array


class PeakRate(NamedTuple):
    """The state of `at_rate`."""

    peak: Array


def at_rate(optimizer: optax.GradientTransformation, peak: float) -> optax.GradientTransformation:
    """An optimizer of rate 1 with its updates times `peak`.

    The compiled step takes the peak with the state, so that a run with another one finds the
    compiled step of the first in the compilation cache.

    Args:
      optimizer: whose learning rate is at most 1, such as `optax.adam(shape)`.
      peak: its largest learning rate.
    """

    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda u: state.peak.astype(u.dtype) * u, updates), state

    scaled = optax.GradientTransformation(lambda params: PeakRate(jnp.float32(peak)), update)
    return optax.chain(optimizer, scaled)


def without_rates(state: TrainState) -> TrainState:
    """A state whose peak rates are 0, so that what computes it holds no rate either."""
    blank = lambda leaf: PeakRate(jnp.zeros(())) if _is_rate(leaf) else leaf  # noqa: E731
    return state.replace(opt_state=jax.tree.map(blank, state.opt_state, is_leaf=_is_rate))


def with_rates(state: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
    """A state of `without_rates`, or from a checkpoint, with the peak rates of an optimizer.

    Args:
      state: arrays, where they belong.
      optimizer: that the state is of, such as one with a rate that has changed.
    """

    @jax.jit
    def peaks(params):
        leaves = jax.tree.leaves(optimizer.init(params), is_leaf=_is_rate)
        return [leaf.peak for leaf in leaves if _is_rate(leaf)]

    found = iter(peaks(state.params))

    def placed(leaf):
        return PeakRate(jax.device_put(next(found), leaf.peak.sharding)) if _is_rate(leaf) else leaf

    return state.replace(opt_state=jax.tree.map(placed, state.opt_state, is_leaf=_is_rate))


def _is_rate(leaf):
    return isinstance(leaf, PeakRate)
