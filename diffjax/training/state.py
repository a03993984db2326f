"""Training state, and the one pure step that advances it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from diffjax.types import Array, Keys, LossFn, Params, PRNGKeyArray, PyTree, Scalar

Gradient = Callable[[Params, PRNGKeyArray, PyTree, dict[str, Any]], tuple]
"""(params, key, batch, context) -> (value, aux, grads, context) of a loss."""


@flax.struct.dataclass
class TrainState:
    """Everything a run needs to go on, as data; functions stay outside.

    Leaves are arrays, or stand-ins for them when the tree is used as a shape or a sharding.

    Attributes:
      step: () int32, steps taken, skipped ones included.
      params: float32 parameters.
      ema_params: their exponential moving average, which samples are drawn with.
      opt_state: Optax's state.
      context: keyword arguments of the loss that it updates itself (see `LossFn`).
      skipped: (2,) int32, steps skipped for a non-finite loss or gradient: in all, and in a row.
    """

    step: Any
    params: Params
    ema_params: Params
    opt_state: PyTree
    context: Any
    skipped: Any


def init_state(
    params: Params, optimizer: optax.GradientTransformation, context: dict[str, Any] | None = None
) -> TrainState:
    """The state at step 0.

    Args:
      params: initial parameters.
      optimizer: gives the initial optimizer state.
      context: initial context of the loss.

    Returns:
      A `TrainState` whose EMA starts at the parameters.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        context=context or {},
        skipped=jnp.zeros((2,), jnp.int32),
    )


def ema_decay_at(step: Array, decay: Scalar) -> Array:
    """Warm-up of the EMA: min(decay, (1 + step)/(10 + step)), so that the start is forgotten."""
    return jnp.minimum(decay, (1 + step) / (10 + step))


def update_ema(ema: Params, params: Params, decay: Array) -> Params:
    """decay ema + (1 - decay) params, leaf by leaf."""
    return jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)


def in_turn(gradient: Gradient, pieces: int) -> Gradient:
    """The gradient of a batch in so many pieces, one at a time.

    Piece i is every `pieces`-th example from i on, with the i-th of the keys that the
    step's key splits into; so each piece of a batch that is spread over devices is too.

    Args:
      gradient: of one piece.
      pieces: their number; it divides the batch.

    Returns:
      The gradient function of the whole batch.
    """
    if pieces == 1:
        return gradient

    def whole(params, key, batch, context):
        cut = jax.tree.map(lambda a: a.reshape(-1, pieces, *a.shape[1:]).swapaxes(0, 1), batch)
        return mean_over(gradient, params, jax.random.split(key, pieces), cut, context)

    return whole


def mean_over(
    gradient: Gradient, params: Params, keys: Keys, pieces: PyTree, context: dict[str, Any]
) -> tuple:
    """The gradient function on each piece after the other; its results averaged.

    Args:
      gradient: of one piece.
      params: parameters.
      keys: one for each piece.
      pieces: batches, stacked.
      context: of the first piece; each hands its own on.

    Returns:
      (value, aux, grads, context), the means and the last context.
    """

    def each(carry, inputs):
        total, context = carry
        *found, context = gradient(params, *inputs, context)
        return (jax.tree.map(jnp.add, total, found), context), None

    def scan(carry, inputs, unroll):
        return jax.lax.scan(each, carry, inputs, unroll=unroll)[0]

    key, piece = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (keys, pieces))
    *shapes, _ = jax.eval_shape(gradient, params, key, piece, context)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.result_type(leaf, float)), shapes)
    # XLA's CPU backend computes the gradient of a convolution's kernel some 100 times
    # slower inside a loop, so that there the loop is unrolled.
    total, context = jax.lax.platform_dependent(
        (zeros, context),
        (keys, pieces),
        cpu=partial(scan, unroll=len(keys)),
        default=partial(scan, unroll=1),
    )
    return *jax.tree.map(lambda a: a / len(keys), total), context


def _gradient(loss: LossFn) -> Gradient:
    """(params, key, batch, context) -> (value, aux, grads, context) of a loss."""
    value_and_grad = jax.value_and_grad(loss, has_aux=True)

    def gradient(params, key, batch, context):
        (value, aux), grads = value_and_grad(params, key, batch, **context)
        updated = aux.pop("context", {})
        return value, aux, grads, {k: updated.get(k, v) for k, v in context.items()}

    return gradient


def make_train_step(
    loss: LossFn,
    optimizer: optax.GradientTransformation,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    divide: Callable[[Gradient, int], Gradient] = in_turn,
) -> Callable[[TrainState, PRNGKeyArray, PyTree], tuple[TrainState, dict[str, Array]]]:
    """One step of training as a pure function of (state, root key, batch).

    The step's key is fold_in(root, state.step), so that a resumed run draws what an
    uninterrupted one would. A step whose loss or gradient is not finite leaves everything
    but `step` and `skipped` as it was.

    Args:
      loss: loss(params, key, batch, **context) -> (scalar, aux).
      optimizer: an Optax transformation.
      ema_decay: limit of the EMA's decay, in [0, 1).
      accumulate: pieces that a batch is cut into, one gradient at a time; they divide B.
      divide: who computes the pieces: `in_turn`, on a mesh `parallel.gathered`, inside a pmap
        `parallel.over_devices`.

    Returns:
      step(state, key, batch) -> (state, metrics). Jit it with `donate_argnums=0`.
    """
    gradient = divide(_gradient(loss), accumulate)

    def step(state, key, batch):
        key = jax.random.fold_in(key, state.step)
        value, aux, grads, context = gradient(state.params, key, batch, state.context)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = ema_decay_at(state.step, ema_decay)
        taken = state.replace(
            params=params,
            ema_params=update_ema(state.ema_params, params, decay),
            opt_state=opt_state,
            context=context,
            skipped=state.skipped * jnp.array([1, 0]),
        )
        passed = state.replace(skipped=state.skipped + 1)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), taken, passed)
        state = state.replace(step=state.step + 1)
        return state, {"loss": value, "grad_norm": norm, **aux, "skipped": state.skipped}

    return step
