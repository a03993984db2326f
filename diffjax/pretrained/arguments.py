"""Values of a published configuration: their types, and those that only look like numbers."""

from typing import Any

from diffjax.errors import InputError

DEEPEST = 1000  # layers; a larger number is a mistake, and would be built one by one
EMA = frozenset(
    (
        "decay",
        "min_decay",
        "optimization_step",
        "update_after_step",
        "use_ema_warmup",
        "inv_gamma",
        "power",
    )
)
"""What diffusers' EMAModel writes into the config.json of the weights that it averaged."""


BY_LEVEL = ("only_cross_attention",)
"""What may be true at some levels of a network and false at others."""


def typed(
    name: str, value: Any, default: Any, where: str = "config.json", one: bool = False
) -> Any:
    """A value as its default's type has it: "1000" is 1000, and "32,16,8" a tuple.

    A list may stand for one number, as where each level has its own, and null for none or for
    false. A default of None takes a value of any type.

    Args:
      name: of the argument, for the error.
      value: as the file has it.
      default: of the reference.
      where: the file, for the error.
      one: whether a number must be one number.

    Raises:
      InputError: the value is null or no number where the reference needs one.
    """
    if isinstance(default, bool):
        if value is None:
            return False  # as published files have it for a setting that is off
        if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
            return bool(value)
        listed = name in BY_LEVEL and isinstance(value, list | tuple)
        if listed and all(isinstance(v, bool) for v in value):
            return value
        raise InputError(f"{where}: expected {name} to be true or false; got {value!r}.")
    if isinstance(default, tuple | list) and isinstance(value, str):
        return _numbers(name, value, where)
    if isinstance(default, tuple | list) and not isinstance(value, tuple | list):
        raise InputError(f"{where}: expected {name} to be a list; got {value!r}.")
    several = isinstance(value, list | tuple) or value is None
    if isinstance(default, str) and not isinstance(value, str) and (one or not several):
        raise InputError(f"{where}: expected {name} to be a string; got {value!r}.")
    if isinstance(default, int | float):
        return value if several and not one else _number(name, value, default, where)
    return value


def _number(name: str, value: Any, default: float | int, where: str) -> Any:
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or number != number:
        raise InputError(f"{where}: expected {name} to be a number; got {value!r}.")
    if isinstance(default, int) and float(number).is_integer():
        number = int(number)
    deep = any(word in name for word in ("layers", "depth", "num_blocks", "num_res_blocks"))
    if deep and number > DEEPEST:
        raise InputError(f"{where}: expected {name} up to {DEEPEST}; got {value!r}.")
    return number


def _numbers(name: str, value: str, where: str) -> tuple:
    parts = [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
    try:
        return tuple(int(part) for part in parts)
    except ValueError as error:
        raise InputError(f"{where}: expected {name} to be a list; got {value!r}.") from error
