"""What a network cannot take, said in one sentence before a layer fails on it."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.types import Array


def check_images(
    module: nn.Module,
    x: Array,
    t: Array | None = None,
    *,
    layer: str,
    multiple: int = 1,
    inputs: Callable[[int], int] = lambda channels: channels,
) -> None:
    """Refuse images that a network cannot take. To be called first in its `__call__`.

    Args:
      module: the network.
      x: images (B, H, W, C).
      t: times (B,); None where the network has none.
      layer: name of the first layer.
      multiple: divides H and W.
      inputs: C -> input channels of that layer; a patch of size p has p^2 C.

    Raises:
      InputError: a wrong number of axes, a size that `multiple` does not divide, or other channels
        than the network's parameters are for.
    """
    name = type(module).__name__
    check_rank(name, x, t, 4, "images (B, H, W, C)")
    if any(n % multiple for n in x.shape[1:3]):
        raise InputError(
            f"{name} needs a height and width of multiples of {multiple}; "
            f"got {x.shape[1]} x {x.shape[2]}; pad or crop the images."
        )
    check_channels(module, x, layer, inputs)


def check_rank(name: str, x: Array, t: Array | None, rank: int, expected: str) -> None:
    """Refuse inputs and times of a wrong number of axes.

    Args:
      name: of the network.
      x: its input.
      t: times (B,); None where the network has none.
      rank: number of axes of x.
      expected: what x should be.

    Raises:
      InputError: says what was expected and what came.
    """
    if jnp.ndim(x) != rank:
        raise InputError(f"{name} takes {expected}; got the shape {jnp.shape(x)}.")
    if t is not None and jnp.ndim(t) != 1:
        raise InputError(
            f"{name} takes one time per sample, (B,); got the shape {jnp.shape(t)}; "
            "jnp.full(B, t) gives every sample the same time."
        )


def check_channels(
    module: nn.Module,
    x: Array,
    layer: str,
    inputs: Callable[[int], int] = lambda channels: channels,
) -> None:
    """Refuse inputs of other channels than the parameters are for; new parameters take any.

    Args:
      module: the network, within its `__call__`.
      x: its input (..., C).
      layer: name of its first layer, of which a parameter is (..., inputs, features).
      inputs: C -> input channels of that layer.

    Raises:
      InputError: says what was expected and what came.
    """
    for kernel in (module.get_variable("params", layer) or {}).values():
        if jnp.ndim(kernel) > 1 and kernel.shape[-2] != inputs(x.shape[-1]):
            known = [c for c in range(1, kernel.shape[-2] + 1) if inputs(c) == kernel.shape[-2]]
            raise InputError(
                f"the parameters of this {type(module).__name__} are for "
                f"{known[0] if known else 'other'} channels; got an input of {x.shape[-1]}."
            )


def check_divides(name: str, divisor: int, number: int, what: str) -> None:
    """Refuse a size that another does not divide.

    Args:
      name: of the network.
      divisor: must divide `number`.
      number: the size.
      what: the two in words, e.g. "heads must divide its width".

    Raises:
      InputError: names both numbers.
    """
    if divisor < 1 or number % divisor:
        raise InputError(f"{name}: {what}; got {divisor} and {number}.")
