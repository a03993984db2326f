"""Tables of what the flags can name: samplers, grids, conditions and configs."""

import ast
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from diffjax.experiment import Model
from diffjax.run.flags import options_of


class Facts(NamedTuple):
    """What a sampler's docstring says of it, as text for a table.

    Attributes:
      order: of accuracy, weak where it is that of the moments; - where there is none.
      calls: of the denoiser per step; - where it chooses its own steps.
      paper: where it is from.
    """

    order: str
    calls: str
    paper: str


NUMBERS = dict(zip(("one", "two", "three", "four", "eight"), "12348", strict=True))
ORDER = re.compile(r" of ((?:weak )?)order (\d(?: to \d)?)")
CALLS = re.compile(r"(\S+) denoiser calls? per step((?:(?:,| and) \w+ (?:in|for) the \w+)*)")


def sampler_info(constructor: Callable) -> Facts:
    """Order, calls and paper of a sampler from its docstring.

    The first line ends in the paper; Returns says "of order 2" and "two denoiser calls per step
    and one in the last".
    """
    text = inspect.getdoc(constructor)
    returns = " ".join(text.partition("Returns:")[2].split())
    order, calls = ORDER.search(returns), CALLS.search(returns)
    counted = calls[1].strip("`") + calls[2].replace(" and ", ", ") if calls else "-"
    words = re.split(r"( |, )", counted)
    return Facts(
        order=order[2] + " weak" * bool(order[1]) if order else "-",
        calls="".join(NUMBERS.get(word, word) for word in words),
        paper=text.split("\n")[0].rpartition(": ")[2].rstrip(".").replace("`", ""),
    )


def describe(functions: Mapping[str, Callable], taken: Collection[str] = ()) -> str:
    """A table of samplers: name, order, denoiser calls and paper; and below, the options.

    Args:
      functions: name to constructor.
      taken: as for `options_of`.

    Returns:
      Lines of text.
    """
    rows = [("name", *Facts._fields), *((name, *sampler_info(f)) for name, f in functions.items())]
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


NOTE = """calls: of the denoiser per step, at the defaults; an option named there sets them. A
sampler without (-) chooses its own steps, and sampling says how many calls they were."""


def samplers_text(samplers: Mapping, grids: Mapping, model: Model | None, taken: Collection) -> str:
    """Every sampler with its order, calls, paper and flags."""
    return f"{describe(samplers, taken)}\n\n{NOTE}"


def grids_text(samplers: Mapping, grids: Mapping, model: Model | None, taken: Collection) -> str:
    """Every grid with its first sentence and flags."""
    return _rows({name: _first_line(f) for name, f in grids.items()}, grids, taken)


def conditions_text(samplers: Mapping, grids: Mapping, model: Model | None, taken: Collection):
    """What a model can be asked for: a flag for each."""
    from diffjax.run.flags import flags_of

    if model is None:
        return "conditions are those of a model: python sample.py WORKDIR --list conditions"
    lines = []
    for condition in model.conditions:
        flags = ", ".join(
            f"--{name.replace('_', '-')}"
            for name in inspect.signature(flags_of(condition.flags)).parameters
        )
        arrays = ", ".join(f"{k} {v.shape} {v.dtype}" for k, v in condition.example.items())
        kept = "kept under guidance" if condition.null is None else "has a null value"
        lines.append(f"{flags}  {arrays}; {kept}")
    return "\n".join(lines) or "this model has no conditions"


def configs_text(samplers: Mapping, grids: Mapping, model: Model | None, taken: Collection) -> str:
    """Every config that ships, with its first sentence."""
    folder = Path(__file__).parents[2] / "configs"
    files = sorted(folder.glob("*.py"))
    docs = {f"configs/{f.name}": ast.get_docstring(ast.parse(f.read_text())) or "" for f in files}
    return _rows({name: text.split("\n")[0] for name, text in docs.items()}, {}, taken)


LISTS: Mapping[str, Callable[..., str]] = {
    "samplers": samplers_text,
    "grids": grids_text,
    "conditions": conditions_text,
    "configs": configs_text,
}
"""What `sample.py --list` can print, by name."""


def _first_line(function: Callable) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]


def _rows(texts: Mapping[str, str], functions: Mapping, taken: Collection[str]) -> str:
    """Lines of name and text, each followed by the function's flags."""
    width, lines = max(map(len, texts)), []
    for name, text in texts.items():
        lines.append(f"{name:{width}}  {text}")
        if name in functions:
            parameters = inspect.signature(options_of(functions[name], taken)).parameters.values()
            flags = " ".join(f"--{p.name.replace('_', '-')} {p.default}" for p in parameters)
            lines += [f"{'':{width}}  {flags}"] if flags else []
    return "\n".join(lines)
