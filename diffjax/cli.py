"""What the two scripts share: flags from signatures, and errors as sentences."""

import dataclasses
import difflib
import inspect
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


def peek(argv: Sequence[str], flag: str, default: str) -> str:
    """The value that follows a flag, before all the flags are known."""
    for argument, following in zip(argv, [*argv[1:], None], strict=False):
        name, _, value = argument.partition("=")
        if name == flag:
            return value or following or default
    return default


def choose(kind: str, name: str, module: ModuleType, returns: Any) -> Callable:
    """The function of a module by its name, among those that return a given type.

    Args:
      kind: what it is called in the error.
      name: of the function.
      module: such as `diffjax.samplers`.
      returns: the return annotation of the functions that may be chosen.

    Returns:
      The function.

    Raises:
      InputError: no such function; lists the names and suggests the nearest.
    """
    known = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value)
        and not key.startswith("_")
        and inspect.signature(value).return_annotation == returns
    }
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InputError(f"{name!r} is not a {kind}; there are {', '.join(sorted(known))}.{hint}")
    return known[name]


def without_schedule(constructor: Callable) -> Callable:
    """A sampler's constructor as its options alone, for `parse`.

    The type of a flag is that of its default: array annotations mean nothing to a shell.
    """
    parameters = list(inspect.signature(constructor).parameters.values())[1:]

    def options(**values):
        return values

    options.__signature__ = inspect.Signature(
        [p.replace(annotation=type(p.default)) for p in parameters]
    )
    options.__doc__ = constructor.__doc__
    return options


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Call main with the command line; an `InputError` prints its sentence and exits with 2."""
    program = sys.argv[0].rsplit("/", 1)[-1]
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; nothing saved after the last checkpoint", file=sys.stderr)
        sys.exit(130)
