"""Moving averages of the parameters: a decay for each step, and the update."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from diffjax.errors import InputError
from diffjax.types import Array, Params

Averages = Mapping[str, Callable[[Array], Array]]
"""Name of an average -> (step -> decay)."""


def ema(decay: float) -> Callable[[Array], Array]:
    """Exponential, with a warm-up: min(decay, (1 + step)/(10 + step)) forgets the start.

    Args:
      decay: limit, in [0, 1).

    Returns:
      step -> decay.

    Raises:
      InputError: a decay that is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise InputError(f"ema_decay must be in [0, 1); got {decay}.")
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


DEFAULT: Averages = MappingProxyType({"ema": ema(0.9999)})


def update_average(average: Params, params: Params, decay: Array) -> Params:
    """decay average + (1 - decay) params, leaf by leaf."""
    return jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), average, params)


def update_averages(
    values: dict[str, Params], params: Params, step: Array, averages: Averages
) -> dict[str, Params]:
    """Every average after a step.

    Args:
      values: the averages before it.
      params: parameters after it.
      step: number of steps before it.
      averages: their decays.

    Returns:
      The averages by the same names.
    """
    return {
        name: update_average(values[name], params, decay(step)) for name, decay in averages.items()
    }
