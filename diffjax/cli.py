"""What the two scripts share: flags from signatures, and errors as sentences."""

import dataclasses
import difflib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Annotated, Any

from diffjax.types import InputError


def parse(
    prog: str,
    description: str,
    functions: Sequence[Callable],
    argv: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Flags from the keywords of several functions, with their types and docstrings.

    Args:
      prog: shown in the help.
      description: what the program does.
      functions: each keyword of each is a flag; no two may have the same.
      argv: the arguments.
      defaults: that take the place of those in the signatures.

    Returns:
      For each function the values of its keywords. A wrong flag or value exits with code 2.
    """
    import docstring_parser
    import tyro

    fields, defaults = [], defaults or {}
    for function in functions:
        documented = docstring_parser.parse(function.__doc__).params
        helps = {p.arg_name: " ".join(p.description.split()) for p in documented}
        for name, p in inspect.signature(function, eval_str=True).parameters.items():
            flag = tyro.conf.arg(help=helps.get(name, ""))
            value = dataclasses.field(default=defaults.get(name, p.default))
            fields.append((name, Annotated[p.annotation, flag], value))
    flags = dataclasses.make_dataclass("Flags", fields, frozen=True)
    values = vars(tyro.cli(flags, prog=prog, description=description, args=list(argv)))
    return [{name: values[name] for name in inspect.signature(f).parameters} for f in functions]


def at_least_one(values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse a count below 1, by the name of its flag.

    Raises:
      InputError: one of the named values is below 1.
    """
    for name in names:
        if values[name] < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1; got {values[name]}.")


def peek(argv: Sequence[str], flag: str, default: str) -> str:
    """The value that follows a flag, before all the flags are known."""
    for argument, following in zip(argv, [*argv[1:], None], strict=False):
        name, _, value = argument.partition("=")
        if name == flag:
            return value or following or default
    return default


def constructors(module: ModuleType, returns: Any) -> dict[str, Callable]:
    """The functions of a module that return a given type and can be called with flags alone.

    Args:
      module: such as `diffjax.samplers`.
      returns: their return annotation.

    Returns:
      Name to function; all parameters after the schedule (and a grid's n) have defaults.
    """
    found = {}
    for name, function in sorted(vars(module).items()):
        if not inspect.isfunction(function) or name.startswith("_"):
            continue
        signature = inspect.signature(function)
        needed = [p for p in signature.parameters.values() if p.default is p.empty]
        if signature.return_annotation == returns and {p.name for p in needed} <= {"schedule", "n"}:
            found[name] = function
    return found


def choose(kind: str, name: str, known: Mapping[str, Callable]) -> Callable:
    """The function of a name.

    Args:
      kind: what it is called in the error.
      name: of the function.
      known: from `constructors`.

    Returns:
      The function.

    Raises:
      InputError: no such function; lists the names and suggests the nearest.
    """
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InputError(f"{name!r} is not a {kind}; there are {', '.join(known)}.{hint}")
    return known[name]


def options_of(constructor: Callable) -> Callable:
    """A sampler's constructor as those of its options that a flag can say, for `parse`.

    The type of a flag is that of its default: array annotations mean nothing to a shell.
    """
    parameters = [
        p.replace(annotation=type(p.default))
        for p in inspect.signature(constructor).parameters.values()
        if isinstance(p.default, bool | int | float | str)
    ]

    def options(**values):
        return values

    options.__signature__ = inspect.Signature(parameters)
    options.__doc__ = constructor.__doc__
    return options


def describe(functions: Mapping[str, Callable]) -> str:
    """A table of functions: name, options, and the first line of the docstring."""
    rows = []
    for name, function in functions.items():
        parameters = inspect.signature(options_of(function)).parameters.values()
        options = " ".join(f"--{p.name.replace('_', '-')} {p.default}" for p in parameters)
        rows.append((name, inspect.getdoc(function).split("\n")[0], _returns(function), options))
    width = max(len(row[0]) for row in rows)
    lines = []
    for name, title, returns, options in rows:
        lines.append(f"{name:{width}}  {title}")
        lines += [f"{'':{width}}  {text}" for text in (returns, options) if text]
    return "\n".join(lines)


def _returns(function: Callable) -> str:
    """The first sentence of the Returns section."""
    text = inspect.getdoc(function).partition("Returns:")[2].partition("Raises:")[0]
    return " ".join(text.split()).partition(". ")[0].rstrip(".")


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Call main with the command line; an `InputError` prints its sentence and exits with 2."""
    program = sys.argv[0].rsplit("/", 1)[-1]
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(f"{program}: interrupted; nothing saved after the last checkpoint", file=sys.stderr)
        sys.exit(130)
