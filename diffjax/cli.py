"""What the two scripts share: flags from signatures, and errors as sentences."""

import dataclasses
import difflib
import inspect
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from types import ModuleType
from typing import Annotated, Any

from diffjax import parallel
from diffjax.errors import InputError
from diffjax.samplers.info import sampler_info


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


def peek(argv: Sequence[str], flag: str, default: str | None = None) -> str | None:
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


def _flag_name(constructor: Callable, name: str, taken: Collection[str]) -> str:
    """The option's own name, or after the constructor's where a flag has it already."""
    return f"{constructor.__name__}_{name}" if name in taken else name


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
    parameters, doc = [], constructor.__doc__
    for name, p in inspect.signature(constructor).parameters.items():
        default = p.default.__name__ if inspect.isfunction(p.default) else p.default
        if isinstance(default, bool | int | float | str):
            flag = _flag_name(constructor, name, taken)
            parameters.append(p.replace(name=flag, default=default, annotation=type(default)))
            doc = doc.replace(f"\n      {name}: ", f"\n      {flag}: ")

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
            found[name] = choose(name, values[flag], known) if by_name else values[flag]
    return found


def _cells(constructor: Callable) -> tuple[str, str, str]:
    """A sampler's order, calls and paper as text; - where there is none."""
    order, calls, paper, weak = sampler_info(constructor)
    order = "-" if order is None else f"{order}{' weak' * weak}"
    if calls is None:
        return order, "-", paper
    slope = calls(3) - calls(2)
    rest = calls(3) - 3 * slope
    shown = f"{slope if slope > 1 else ''}n" + (f" {'+-'[rest < 0]} {abs(rest)}" if rest else "")
    return order, shown, paper


def describe(functions: Mapping[str, Callable], taken: Collection[str] = ()) -> str:
    """A table of samplers: name, order, denoiser calls of n steps and paper; below, the options.

    Args:
      functions: name to constructor.
      taken: as for `options_of`.

    Returns:
      Lines of text.
    """
    rows = [("name", "order", "calls", "paper"), *((n, *_cells(f)) for n, f in functions.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    options = [""]
    for function in functions.values():
        parameters = inspect.signature(options_of(function, taken)).parameters.values()
        options.append(" ".join(f"--{p.name.replace('_', '-')} {p.default}" for p in parameters))
    lines = []
    for row, flags in zip(rows, options, strict=True):
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
        lines += [f"{'':{widths[0]}}  {flags}"] if flags else []
    return "\n".join(lines)


def processes(
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 60,
) -> None:
    """Flags of a job of many processes, each started with the same command.

    Args:
      distributed: join the other processes; on a TPU pod or under Slurm this is enough.
      coordinator: HOST:PORT of process 0, elsewhere.
      num_processes: how many processes there are, elsewhere.
      process_id: which one this is, from 0, elsewhere.
      timeout: seconds of silence after which another process counts as dead.
    """
    if distributed:
        parallel.connect(coordinator, num_processes, process_id, timeout)
    elif (coordinator, num_processes, process_id) != (None, None, None):
        raise InputError("--coordinator, --num-processes and --process-id need --distributed.")


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
