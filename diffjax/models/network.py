"""From a Linen module to the `Network` that the rest of diffjax calls."""

from typing import Any

from flax import linen as nn

from diffjax.types import Network


def network(module: nn.Module, **arguments: Any) -> Network:
    """A Linen module of `__call__(x, t, cond, train)` as a pure function.

    Args:
      module: the module, without parameters.
      **arguments: further arguments of its `__call__`, such as a U-Net's `skip`; they may
        hold traced values.

    Returns:
      (params, x, c_noise, cond, key) -> raw output, where a dropout key means training and
      None means sampling.
    """

    def apply(params, x, c_noise, cond, key):
        rngs = None if key is None else {"dropout": key}
        inputs = (x, c_noise, cond, key is not None)
        return module.apply({"params": params}, *inputs, rngs=rngs, **arguments)

    return apply
