"""What a user is told: bad input as one sentence, and other errors in one line."""

from typing import Any

INFINITY = float("inf")


class InputError(ValueError):
    """Bad input from a user: the scripts print its sentence and exit with code 2."""


def sentence(error: BaseException) -> str:
    """The kind and the first line of an error, for a message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def check_positive(where: str, **values: Any) -> None:
    """Refuse numbers that are not positive and finite.

    Args:
      where: the function that is given them.
      **values: by name; traced ones are not looked at.

    Raises:
      InputError: says which and what came.
    """
    import jax  # here, since a script reads this file before it is ready for an interrupt

    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and not 0 < value < INFINITY:
            raise InputError(f"{where} needs a positive {name}; got {value}.")


def check_finite(where: str, **values: Any) -> None:
    """Refuse numbers that are infinite or no numbers.

    Args:
      where: the function that is given them.
      **values: by name; traced ones are not looked at.

    Raises:
      InputError: says which and what came.
    """
    import jax

    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and not -INFINITY < value < INFINITY:
            raise InputError(f"{where} needs a finite {name}; got {value}.")
