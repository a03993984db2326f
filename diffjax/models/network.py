"""From a Linen module to the `Network` that the rest of diffjax calls."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.interpreters import partial_eval

from diffjax.errors import InputError
from diffjax.types import Array, Cond, Network


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


def with_features(module: nn.Module, name: str) -> Callable[..., tuple[Array, Array]]:
    """A Linen module as a function that gives the output of one of its layers, too.

    Args:
      module: the module, without parameters, of `__call__(x, t, cond, train)`.
      name: of a layer that it calls once and that is not scanned, such as "middle_1", the last
        one before a U-Net's way up.

    Returns:
      (params, x, c_noise, cond, key) -> (raw output, the layer's output).

    Raises:
      InputError: when called, if not one layer of that name is called.
    """

    def named(layer, method):
        return layer.name == name and method == "__call__"

    def apply(params, x, c_noise, cond, key):
        rngs = None if key is None else {"dropout": key}
        kept = {"capture_intermediates": named, "mutable": ["intermediates"]}
        out, seen = module.apply(
            {"params": params}, x, c_noise, cond, key is not None, rngs=rngs, **kept
        )
        found = jax.tree.leaves(seen)
        if len(found) != 1:
            raise InputError(
                f"expected a network with one layer {name!r}; {type(module).__name__} calls "
                f"{len(found)} of that name. Give the name of one, such as 'middle_1' of a U-Net."
            )
        return out, found[0]

    return apply


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
