"""What a constructor asks of its arguments; traced values are taken as they are."""

from collections.abc import Mapping
from typing import Any

import jax

from diffjax.types import InputError


def at_least(name: str, value: Any, least: float = 0.0) -> None:
    """Raise an InputError where a known value is below `least`."""
    if not isinstance(value, jax.core.Tracer) and not value >= least:
        raise InputError(f"{name} must be at least {least:g}; got {value}.")


def count(name: str, value: Any, least: int = 1) -> None:
    """Raise an InputError unless the value, which sets a shape, is an int of at least `least`."""
    if not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}; got {value!r}.")


def choose(name: str, value: str, options: Mapping[str, Any]) -> Any:
    """The option of that name, or an InputError that lists them."""
    if value not in options:
        raise InputError(f"{name} must be one of {', '.join(options)}; got {value!r}.")
    return options[value]
