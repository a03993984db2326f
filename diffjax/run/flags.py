"""Flags from signatures: what the scripts share to read a command line."""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from diffjax.errors import InputError


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
      functions: each keyword of each is a flag; where several have the same, it is one flag of
        the first one's type and help, and each is given its value.
      argv: the arguments.
      defaults: that take the place of those in the signatures.

    Returns:
      For each function the values of its keywords. A wrong flag or value exits with code 2.
    """
    import docstring_parser
    import tyro

    fields, defaults, args = {}, defaults or {}, [*argv]
    for function in functions:
        documented = docstring_parser.parse(function.__doc__).params
        helps = {p.arg_name: " ".join(p.description.split()) for p in documented}
        for name, p in inspect.signature(function, eval_str=True).parameters.items():
            if name in fields:
                continue
            value = defaults.get(name, p.default)
            kind = Annotated[p.annotation, tyro.conf.arg(help=helps.get(name, ""))]
            if isinstance(value, list):  # a flag that may be given several times
                kind, args = tyro.conf.UseAppendAction[kind], spread(args, _flag(name))
            default = dataclasses.field(default_factory=functools.partial(_same, value))
            fields[name] = (name, kind, default)
    flags = dataclasses.make_dataclass("Flags", fields.values(), frozen=True)
    values = vars(tyro.cli(flags, prog=prog, description=description, args=args))
    return [{name: values[name] for name in inspect.signature(f).parameters} for f in functions]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _same(value: Any) -> Any:
    return value


def at_least_one(values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse a count below 1, by the name of its flag.

    Raises:
      InputError: one of the named values is below 1.
    """
    for name in names:
        if values[name] < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1; got {values[name]}.")


def check_seed(seed: int) -> None:
    """Refuse a seed that a key cannot tell from another.

    Raises:
      InputError: it is not from 0 to 2^32 - 1.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed must be from 0 to {2**32 - 1}; got {seed}.")


def is_given(argv: Sequence[str], *names: str) -> bool:
    """Whether one of the flags is among the arguments."""
    flags = {argument.partition("=")[0].replace("_", "-") for argument in argv}
    return bool(flags & {f"--{name.replace('_', '-')}" for name in names})


def early_flag(argv: Sequence[str], flag: str, default: str | None = None) -> str | None:
    """The value that follows a flag, before all the flags are known."""
    for argument, following in zip(argv, [*argv[1:], None], strict=False):
        name, _, value = argument.partition("=")
        if name == flag:
            return value or following or default
    return default


def early_flags(argv: Sequence[str], flag: str) -> list[str]:
    """The values of a flag that may be given several times, before all the flags are known."""
    argv = spread(argv, flag)
    places = [i for i, argument in enumerate(argv) if argument.partition("=")[0] == flag]
    return [value for i in places if (value := early_flag(argv[i:], flag)) is not None]


def spread(argv: Sequence[str], flag: str) -> list[str]:
    """Arguments in which every value of a flag has the flag before it: --x a b is --x a --x b."""
    found, values = [], None  # values of the flag so far; None elsewhere
    for argument in argv:
        if argument.startswith("-"):
            values = {flag: 0, f"{flag}=": 1}.get(argument[: len(flag) + 1])
        elif values is not None:
            found += [flag] if values else []
            values += 1
        found.append(argument)
    return found


def file_and_scale(text: str) -> tuple[Path, float]:
    """FILE:0.7 as a file and its scale, which is 1 where it is not said."""
    path, colon, scale = text.rpartition(":")
    try:
        return (Path(path), float(scale)) if colon else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0


def early_size(argv: Sequence[str], flag: str) -> int | None:
    """The number that follows a flag, before all the flags are known.

    Raises:
      InputError: it is no number of at least 1.
    """
    text = early_flag(argv, flag)
    if text is not None and not (text.isdigit() and int(text)):
        raise InputError(f"{flag} must be a whole number of at least 1; got {text}.")
    return None if text is None else int(text)


def early_values(argv: Sequence[str], function: Callable, *without: str) -> dict[str, Any]:
    """The values of a function's flags, whole numbers and text, before all the flags are known."""
    found = {}
    for name, p in inspect.signature(function).parameters.items():
        text = early_flag(argv, f"--{name.replace('_', '-')}")
        found[name] = p.default if text is None else int(text) if text.isdigit() else text
    return {name: value for name, value in found.items() if name not in without}


def constructors(
    module: ModuleType, returns: Any, given: Collection[str] = ("schedule", "n")
) -> dict[str, Callable]:
    """The functions of a module that return a given type and can be called with flags alone.

    Args:
      module: such as `diffjax.samplers`.
      returns: their return annotation.
      given: parameters that no flag gives.

    Returns:
      Name to function; all other parameters have defaults.
    """
    found = {}
    for name, function in sorted(vars(module).items()):
        if not inspect.isfunction(function) or name.startswith("_"):
            continue
        signature = inspect.signature(function)
        needed = [p for p in signature.parameters.values() if p.default is p.empty]
        if signature.return_annotation == returns and {p.name for p in needed} <= {*given}:
            found[name] = function
    return found


def choose_by_name(kind: str, name: str, known: Mapping[str, Callable]) -> Callable:
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


def name_of(function: Callable) -> str:
    """The name of a function, or of what a `functools.partial` is of."""
    return name_of(function.func) if isinstance(function, functools.partial) else function.__name__


def named(
    kind: str, argv: Sequence[str], flag: str, usual: Callable, known: Mapping[str, Callable]
) -> tuple[str, Callable]:
    """The function that a flag names, or the usual one, which need not be known by name.

    Args:
      kind: what it is called in the error.
      argv: the arguments.
      flag: such as --sampler.
      usual: where the flag is not given, or names it.
      known: from `constructors`.

    Returns:
      The name and the function.

    Raises:
      InputError: no such function.
    """
    name = early_flag(argv, flag, name_of(usual))
    return name, usual if name == name_of(usual) else choose_by_name(kind, name, known)


def _flag_name(constructor: Callable, name: str, taken: Collection[str]) -> str:
    """The option's own name, or after the constructor's where a flag has it already."""
    return f"{name_of(constructor)}_{name}" if name in taken else name


def keywords_of(flags: Callable) -> list[str]:
    """The keywords of a condition's `flags`: all its parameters but the first."""
    return list(inspect.signature(flags).parameters)[1:]


def flags_of(condition_flags: Callable) -> Callable:
    """A condition's `flags` without its first parameter, for `parse`."""

    def flags(**values):
        return values

    parameters = list(inspect.signature(condition_flags, eval_str=True).parameters.values())
    flags.__signature__ = inspect.Signature(
        [p.replace(kind=p.KEYWORD_ONLY) for p in parameters[1:]]
    )
    flags.__doc__ = condition_flags.__doc__
    return flags


def options_of(constructor: Callable, taken: Collection[str] = ()) -> Callable:
    """A sampler's constructor as those of its options that a flag can say, for `parse`.

    The type of a flag is that of its default: array annotations mean nothing to a shell. An
    option that is another constructor is a flag that names it.

    Args:
      constructor: of a sampler.
      taken: names of other flags; an option of that name has the constructor's before it.

    Returns:
      A function of those options, with the constructor's docstring.
    """
    parameters, doc = [], inspect.getdoc(getattr(constructor, "func", constructor)) or ""
    for name, p in inspect.signature(constructor).parameters.items():
        default = p.default.__name__ if inspect.isfunction(p.default) else p.default
        if isinstance(default, bool | int | float | str):
            flag = _flag_name(constructor, name, taken)
            parameters.append(p.replace(name=flag, default=default, annotation=type(default)))
            doc = doc.replace(f"\n  {name}: ", f"\n  {flag}: ")

    def options(**values):
        return values

    options.__signature__ = inspect.Signature(parameters)
    options.__doc__ = doc
    return options


def keywords(
    constructor: Callable,
    values: Mapping[str, Any],
    known: Mapping[str, Callable],
    taken: Collection[str] = (),
) -> dict[str, Any]:
    """What `options_of` made flags of, as keywords again.

    Args:
      constructor: of a sampler.
      values: of its flags.
      known: from `constructors`, where an option may name another.
      taken: as for `options_of`.

    Returns:
      Keywords for the constructor.

    Raises:
      InputError: there is no such function.
    """
    found = {}
    for name, p in inspect.signature(constructor).parameters.items():
        flag = _flag_name(constructor, name, taken)
        if flag in values:
            by_name = inspect.isfunction(p.default)
            found[name] = choose_by_name(name, values[flag], known) if by_name else values[flag]
    return found
