"""Charts of the report, as SVG that follows the page's colours."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffjax.evaluation.sweeps import Line

COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#e5484d", "#8b5cf6")
INK = "#808080"
SHARES = ("precision", "recall", "density", "coverage", "authenticity", "classifier agreement")
CURVES = ("frechet_distance", "kid", "precision", "recall", "coverage", "classifier_agreement")
CURVES += ("authenticity",)


def _axes(width: float, height: float, count: int = 1):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    grid = figure.subplots(-(-count // 2), min(count, 2), squeeze=False).ravel()
    for axes in grid:
        axes.tick_params(colors=INK)
        axes.grid(alpha=0.25)
        for spine in axes.spines.values():
            spine.set_visible(False)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid[:count]


def _svg(figure) -> str:
    """The figure as SVG whose text is text, in the page's own font and colour."""
    import matplotlib

    figure.tight_layout()
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "diffjax"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return text.replace("DejaVu Sans", "system-ui").replace("'Bitstream Vera Sans', ", "")


def shares(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The metrics that lie in [0, 1]: value, interval and floor."""
    shown = [(name, metrics[name]) for name in SHARES if name in metrics][::-1]
    if not shown:
        return ""
    figure, (axes,) = _axes(6.4, 0.42 * len(shown) + 0.9)
    for i, (_, m) in enumerate(shown):
        first = i == 0
        if m["low"] is not None:
            axes.plot([m["low"], m["high"]], [i, i], color=COLOURS[0], linewidth=3)
        if m["floor"] is not None:
            label = "real against real" if first else None
            axes.plot(m["floor"], i, "D", color=COLOURS[1], ms=6, label=label, mfc="none", mew=2)
        axes.plot(m["value"], i, "o", color=COLOURS[0], ms=6, label="samples" if first else None)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 2}
    axes.legend(frameon=False, labelcolor=INK, **place)
    return _svg(figure)


def training(rows: Sequence[Mapping[str, float]], prefix: str) -> str:
    """Curves over training: the loss, and every metric of samples that was logged."""
    names = ("loss", *(prefix + name for name in CURVES))
    shown = [name for name in names if sum(name in row for row in rows) > 1]
    if not shown:
        return ""
    figure, grid = _axes(7.2, 2.1 * -(-len(shown) // 2) + 0.4, len(shown))
    for axes, name in zip(grid, shown, strict=True):
        points = np.array([(row["step"], row[name]) for row in rows if name in row])
        marker = "." if len(points) < 40 else None
        axes.plot(*points.T, color=COLOURS[0], marker=marker)
        title = name.removeprefix(prefix).replace("_", " ").replace("kid", "KID")
        axes.set_title(title, color=INK, fontsize=11)
        if name == "loss":
            axes.set_yscale("log")
            axes.tick_params(which="both", colors=INK)
    return _svg(figure)


def sweep(lines: Sequence[Line], x: str, y: str, log: bool = False) -> str:
    """A metric along the settings of one or several lines, with intervals."""
    figure, (axes,) = _axes(6.4, 3.4)
    for colour, line in zip(COLOURS * 4, lines, strict=False):
        at = [point.at for point in line.points]
        low, high = ([p.low for p in line.points], [p.high for p in line.points])
        if np.isfinite(low).all():
            axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        values = [point.value for point in line.points]
        axes.plot(at, values, "o-", color=colour, ms=4, label=line.name)
    if log:
        axes.set_xscale("log")
        ticks = [point.at for point in lines[0].points]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        values = [point.value for line in lines for point in line.points]
        if min(values) > 0 and max(values) > 5 * min(values):
            axes.set_yscale("log")
            axes.tick_params(which="both", colors=INK)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    if any(line.name for line in lines):
        axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure)
