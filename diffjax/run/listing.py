"""Tables of what the flags can name: samplers, grids, conditions and configs."""

import ast
import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from diffjax.experiment import Model
from diffjax.run.flags import options_of
from diffjax.samplers.info import sampler_info


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


NOTE = """calls: of the denoiser in n steps, at the defaults. A sampler without (-) chooses its own
steps, and sampling says how many calls they were."""


def samplers_text(samplers: Mapping, grids: Mapping, model: Model | None, taken: Collection) -> str:
    """Every sampler with its order, calls, paper and flags."""
    return f"{describe(samplers, taken)}\n\n{NOTE}"


def functions_text(functions: Mapping[str, Callable], taken: Collection) -> str:
    """Functions with their first sentences and flags."""
    return _rows({name: _first_line(f) for name, f in functions.items()}, functions, taken)


def grids_text(samplers: Mapping, grids: Mapping, model: Model | None, taken: Collection) -> str:
    """Every grid with its first sentence and flags."""
    return functions_text(grids, taken)


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
