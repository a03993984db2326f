"""Flags by parts: `get_config` put together from functions whose keywords are flags."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def defaults(function: Callable, **values: Any) -> Callable:
    """The function with other defaults, and a signature that shows them.

    Args:
      function: of keywords.
      **values: defaults; one that is itself a function is fixed, and no flag.

    Returns:
      The function.
    """
    signature = inspect.signature(function, eval_str=True)
    unknown = values.keys() - signature.parameters.keys()
    if unknown:
        raise TypeError(f"{function.__name__} has no keyword {', '.join(sorted(unknown))}")
    wrapped = functools.wraps(function)(functools.partial(function, **values))
    wrapped.__signature__ = signature.replace(
        parameters=[
            p.replace(default=values.get(name, p.default), kind=p.KEYWORD_ONLY)
            for name, p in signature.parameters.items()
            if not callable(values.get(name))
        ]
    )
    return wrapped


def flags(**parts: Callable) -> Callable:
    """A decorator: `get_config` is called with what each part makes of its own keywords.

    Args:
      **parts: name of a parameter of `get_config` -> function of keywords, from `defaults`.

    Returns:
      The decorator; the result has the keywords of all parts, and those of `get_config` itself.
    """
    signatures = {name: inspect.signature(part, eval_str=True) for name, part in parts.items()}

    def decorate(get_config: Callable) -> Callable:
        own = [
            p.replace(kind=p.KEYWORD_ONLY)
            for name, p in inspect.signature(get_config, eval_str=True).parameters.items()
            if name not in parts
        ]

        @functools.wraps(get_config)
        def configured(**options):
            made = {}
            for name, part in parts.items():
                names = signatures[name].parameters.keys() & options.keys()
                made[name] = part(**{k: options.pop(k) for k in names})
            return get_config(**made, **options)

        found = [
            p.replace(kind=p.KEYWORD_ONLY)
            for s in signatures.values()
            for p in s.parameters.values()
        ]
        configured.__signature__ = inspect.Signature([*found, *own])
        configured.__doc__ = _one_docstring(get_config, *parts.values())
        return configured

    return decorate


def _one_docstring(*functions: Callable) -> str:
    """The first function's summary, and the arguments of all."""
    import docstring_parser

    docs = [docstring_parser.parse(f.__doc__ or "") for f in functions]
    found = {p.arg_name: " ".join(p.description.split()) for doc in docs for p in doc.params}
    lines = [f"  {name}: {text}" for name, text in found.items()]
    return "\n".join([docs[0].short_description or "", "", "Args:", *lines])
