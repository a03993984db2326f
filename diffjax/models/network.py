"""From a Linen module to the `Network` that the rest of diffjax calls."""

from typing import Any

import jax
from flax import linen as nn
from jax.interpreters import partial_eval

from diffjax.errors import InputError
from diffjax.types import Cond, Network


def network(module: nn.Module, **arguments: Any) -> Network:
    """A Linen module of `__call__(x, t, cond, train)` as a pure function.

    Args:
      module: the module, without parameters.
      **arguments: further arguments of its `__call__`, such as a U-Net's `skip`; they may
        hold traced values.

    Returns:
      (params, x, c_noise, cond, key) -> raw output, where a dropout key means training and
      None means sampling. It raises InputError for a condition on which the output does not
      depend, such as tokens where no block attends to them.
    """

    def apply(params, x, c_noise, cond, key):
        rngs = None if key is None else {"dropout": key}
        inputs = (x, c_noise, cond, key is not None)
        return module.apply({"params": params}, *inputs, rngs=rngs, **arguments)

    def checked(params, x, c_noise, cond, key):
        if not cond:
            return apply(params, x, c_noise, cond, key)
        # Traced once, looked at, and evaluated as it was traced.
        given = (params, x, c_noise, cond, key)
        traced, shape = jax.make_jaxpr(apply, return_shape=True)(*given)
        check_used(traced.jaxpr, given, cond)
        out = jax.core.eval_jaxpr(traced.jaxpr, traced.consts, *jax.tree.leaves(given))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return checked


def check_used(jaxpr: Any, given: tuple[Any, ...], cond: Cond) -> None:
    """Refuse conditions on which no output of a traced network depends.

    Args:
      jaxpr: of a function of `given`.
      given: (params, x, c_noise, cond, key).
      cond: the conditions in it.

    Raises:
      InputError: names them.
    """
    _, kept = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    used: Cond = jax.tree.unflatten(jax.tree.structure(given), kept)[3]
    unused = sorted(name for name in cond if not any(jax.tree.leaves(used[name])))
    if unused:
        raise InputError(
            f"the network does not use cond[{', '.join(map(repr, unused))}]: of the conditions "
            f"{', '.join(sorted(cond))} its output depends on "
            f"{', '.join(sorted(set(cond) - set(unused))) or 'none'}. Leave the others out, or "
            "build the network with an input for them."
        )
