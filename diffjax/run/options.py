"""Keywords of a config as JSON, and back by their annotations."""

import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffjax.errors import InputError


def to_json(value: Any) -> Any:
    """A keyword's value as what JSON can hold.

    Raises:
      InputError: a value of another kind.
    """
    match value:
        case enum.Enum():
            return value.name
        case Path():
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [to_json(v) for v in value]
        case set() | frozenset():
            return sorted((to_json(v) for v in value), key=repr)
        case Mapping():
            return {str(to_json(k)): to_json(v) for k, v in value.items()}
    raise InputError(
        "a keyword of get_config must be a number, a string, a path, an enum, None, or a "
        f"collection of those; got {value!r}."
    )


def from_json(value: Any, kind: Any) -> Any:
    """What `to_json` was given, from its annotation.

    Args:
      value: from JSON.
      kind: the annotation; `Any` gives tuples for lists.

    Returns:
      The value.
    """
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _of_union(value, arguments)
    if origin is typing.Annotated:
        return from_json(value, arguments[0])
    if not isinstance(origin, type):
        return tuple(from_json(v, Any) for v in value) if isinstance(value, list) else value
    if issubclass(origin, enum.Enum):
        return origin[value]
    if issubclass(origin, Path):
        return Path(value)
    if issubclass(origin, Mapping) and isinstance(value, dict):
        key, item = arguments or (str, Any)
        return {_key(k, key): from_json(v, item) for k, v in value.items()}
    if isinstance(value, list):
        return _collection(value, origin, arguments)
    return float(value) if origin is float and not isinstance(value, bool) else value


def _key(text: str, kind: Any) -> Any:
    return kind(text) if kind in (int, float) else from_json(text, kind)


def _collection(value: list, origin: type, arguments: tuple) -> Any:
    """A list, tuple or set of its annotated items; a tuple where the annotation is wider."""
    fixed = issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis
    kinds = arguments if fixed else [arguments[0] if arguments else Any] * len(value)
    items = [from_json(v, k) for v, k in zip(value, kinds, strict=True)]
    concrete = origin if origin in (list, set, frozenset) else tuple
    return concrete(items)


def _of_union(value: Any, kinds: tuple) -> Any:
    """The first of the kinds that turns the value into something that is stored as it."""
    if value is None:
        return None
    for kind in sorted(kinds, key=lambda kind: kind is float):
        try:
            found = from_json(value, kind)
        except (KeyError, TypeError, ValueError):
            continue
        base = typing.get_origin(kind) or kind
        fits = isinstance(found, base) if isinstance(base, type) else True
        if fits and to_json(found) == value:
            return found
    return value


def read_options(stored: Mapping[str, Any], get_config: Callable) -> dict[str, Any]:
    """Stored keywords as `get_config` was called with them."""
    parameters = inspect.signature(get_config, eval_str=True).parameters
    return {
        name: from_json(value, parameters[name].annotation if name in parameters else Any)
        for name, value in stored.items()
    }
