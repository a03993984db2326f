"""Training state, and the one pure step that advances it."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from diffjax.training.averages import DEFAULT, Averages, update_averages
from diffjax.types import Array, Keys, LossFn, Params, PRNGKeyArray, PyTree

NOTHING: Mapping[str, PyTree] = MappingProxyType({})

Gradient = Callable[[Params, PRNGKeyArray, PyTree, dict[str, Any]], tuple]
"""(params, key, batch, context) -> (value, aux, grads, context) of a loss."""


@flax.struct.dataclass
class TrainState:
    """Everything a run needs to go on, as data; functions stay outside.

    Leaves are arrays, or stand-ins for them when the tree is used as a shape or a sharding.

    Attributes:
      step: () int32, steps taken, skipped ones included.
      params: float32 parameters.
      averages: moving averages of the parameters by name; samples are drawn with the first.
      opt_state: Optax's state.
      context: keyword arguments of the loss that it updates itself (see `LossFn`).
      skipped: (2,) int32, steps skipped for a non-finite loss or gradient: in all, and in a row.
    """

    step: Any
    params: Params
    averages: dict[str, Params]
    opt_state: PyTree
    context: Any
    skipped: Any

    @property
    def ema_params(self) -> Params:
        """The first of the averages."""
        return next(iter(self.averages.values()))


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    context: dict[str, Any] | None = None,
    averages: Averages = DEFAULT,
) -> TrainState:
    """The state at step 0.

    Args:
      params: initial parameters.
      optimizer: gives the initial optimizer state.
      context: initial context of the loss.
      averages: name -> (step -> decay).

    Returns:
      A `TrainState` whose averages start at the parameters.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        averages={name: jax.tree.map(jnp.copy, params) for name in averages},
        opt_state=optimizer.init(params),
        context=context or {},
        skipped=jnp.zeros((2,), jnp.int32),
    )


def accumulate_gradients(gradient: Gradient, number: int) -> Gradient:
    """The gradient of a batch as the mean over microbatches, one at a time.

    Microbatch i holds examples i, i + n, i + 2n, ... and uses key i of split(key, n), so it spans
    all devices.

    Args:
      gradient: of one microbatch.
      number: n, of microbatches; it divides the batch.

    Returns:
      The gradient function of the whole batch.
    """
    if number == 1:
        return gradient

    def whole(params, key, batch, context):
        cut = jax.tree.map(lambda a: a.reshape(-1, number, *a.shape[1:]).swapaxes(0, 1), batch)
        return scan_microbatches(gradient, params, jax.random.split(key, number), cut, context)

    return whole


def scan_microbatches(
    gradient: Gradient, params: Params, keys: Keys, batches: PyTree, context: dict[str, Any]
) -> tuple:
    """The mean of the gradient function over stacked microbatches, in a `lax.scan`.

    Args:
      gradient: of one microbatch.
      params: parameters.
      keys: one for each microbatch.
      batches: the microbatches, stacked.
      context: of the first microbatch; each gives its own to the next.

    Returns:
      (value, aux, grads, context), the means and the last context.
    """

    def each(carry, inputs):
        total, context = carry
        *found, context = gradient(params, *inputs, context)
        return (jax.tree.map(jnp.add, total, found), context), None

    def scan(carry, inputs, unroll):
        return jax.lax.scan(each, carry, inputs, unroll=unroll)[0]

    key, batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (keys, batches))
    *shapes, _ = jax.eval_shape(gradient, params, key, batch, context)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.result_type(leaf, float)), shapes)
    # XLA's CPU backend computes the gradient of a convolution's kernel some 100 times
    # slower inside a loop, so that there the loop is unrolled.
    total, context = jax.lax.platform_dependent(
        (zeros, context),
        (keys, batches),
        cpu=partial(scan, unroll=len(keys)),
        default=partial(scan, unroll=1),
    )
    return *jax.tree.map(lambda a: a / len(keys), total), context


def loss_gradient(loss: LossFn, frozen: Mapping[str, PyTree]) -> Gradient:
    """(params, key, batch, context) -> (value, aux, grads, context) of a loss.

    A loss of a run with frozen networks is given their parameters as `frozen=`.
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    reads = {"frozen": frozen} if frozen else {}

    def gradient(params, key, batch, context):
        (value, aux), grads = value_and_grad(params, key, batch, **context, **reads)
        updated = aux.pop("context", {})
        return value, aux, grads, {k: updated.get(k, v) for k, v in context.items()}

    return gradient


def make_train_step(
    loss: LossFn,
    optimizer: optax.GradientTransformation,
    averages: Averages = DEFAULT,
    accumulate: int = 1,
    divide: Callable[[Gradient, int], Gradient] = accumulate_gradients,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """One step of training as a pure function of (state, root key, batch, frozen).

    The step's key is fold_in(root, state.step), so that a resumed run draws what an
    uninterrupted one would. A step whose loss or gradient is not finite leaves everything
    but `step` and `skipped` as it was.

    Args:
      loss: loss(params, key, batch, **context) -> (scalar, aux).
      optimizer: an Optax transformation.
      averages: name -> (step -> decay), such as {"ema": training.ema(0.9999)}.
      accumulate: microbatches that a batch is cut into, one gradient at a time; they divide B.
      divide: who computes the microbatches: `accumulate_gradients`, on a mesh
        `parallel.fsdp_gradient`, inside a pmap `parallel.pmap_gradient`.

    Returns:
      step(state, key, batch, frozen={}) -> (state, metrics), where `frozen` is name ->
      parameters that are read and never trained. Jit it with `donate_argnums=0`.
    """

    def step(state, key, batch, frozen=NOTHING):
        gradient = divide(loss_gradient(loss, frozen), accumulate)
        key = jax.random.fold_in(key, state.step)
        value, aux, grads, context = gradient(state.params, key, batch, state.context)
        with jax.named_scope("optimizer"):  # as a profile names it
            norm = optax.tree.norm(grads)
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        with jax.named_scope("averages"):
            averaged = update_averages(state.averages, params, state.step, averages)
        taken = state.replace(
            params=params,
            averages=averaged,
            opt_state=opt_state,
            context=context,
            skipped=state.skipped * jnp.array([1, 0]),
        )
        passed = state.replace(skipped=state.skipped + 1)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        with jax.named_scope("finite"):
            state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), taken, passed)
        state = state.replace(step=state.step + 1)
        return state, {"loss": value, "grad_norm": norm, **aux, "skipped": state.skipped}

    return step
