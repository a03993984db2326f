"""The tables and the picture of `benchmarks/solvers.py`."""

import numpy as np

GREY, BLACK = "#c9cdd2", "#22272e"
PUBLIC = {  # emphasised: colour and marker
    "heun, karras": ("#8b6bb1", "s"),
    "dpmpp_2m, karras": ("#1f77b4", "o"),
    "unipc 3, karras": ("#17a2a2", "^"),
    "deis 3, karras": ("#4d9a3a", "v"),
}
OURS = {
    "dpm_2, amed": ("#e69f00", "D"),
    "dpmpp_2m, learned": ("#f08a97", "o"),
    "dpmpp_2m, decoupled": ("#d1495b", "o"),
    "unipc 3, decoupled": ("#7a1f3d", "^"),
}
NAMES = {
    "heun, karras": "Heun",
    "dpmpp_2m, karras": "DPM-Solver++(2M)",
    "unipc 3, karras": "UniPC-3",
    "deis 3, karras": "DEIS-3",
    "dpm_2, amed": "AMED, fitted",
    "dpmpp_2m, learned": "DPM-Solver++(2M), learned grid",
    "dpmpp_2m, decoupled": "DPM-Solver++(2M), decoupled",
    "unipc 3, decoupled": "UniPC-3, decoupled",
}


def is_public(row):
    """Whether nothing in it is learned."""
    return not row.endswith((", learned", ", decoupled", ", amed"))


def best(rows, calls, wanted):
    """(row, error) of the least error at a number of calls among the rows wanted."""
    found = [(name, cells[calls][0]) for name, cells in rows.items() if calls in cells]
    return min((pair for pair in found if wanted(pair[0])), key=lambda pair: pair[1])


def number(value):
    """Three figures."""
    return f"{value:#.3g}".rstrip(".")


def table(rows, calls):
    """Markdown: a row per solver, the least of each column bold, calls where not all are spent."""
    least = {c: min(cells[c][0] for cells in rows.values() if c in cells) for c in calls}
    lines = ["| solver | " + " | ".join(calls) + " |", "|---|" + "---:|" * len(calls)]
    for name, cells in rows.items():
        texts = []
        for c in calls:
            if c not in cells:
                texts.append("")
                continue
            value, spent = cells[c]
            text = f"**{number(value)}**" if value == least[c] else number(value)
            texts.append(text + (f" ({spent})" if spent not in (0, int(c)) else ""))
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def summary(problems, calls):
    """Markdown: the best public solver, the best of all, and the gain of learned times."""
    lines = [
        "| problem | calls | best public on Karras | best public, any grid | best of all | ratio |",
        "|---|---:|---|---|---|---:|",
    ]
    for problem, rows in problems.items():
        for c in calls:
            karras = best(rows, c, lambda row: row.endswith(", karras"))
            public, every = best(rows, c, is_public), best(rows, c, lambda row: True)
            cells = [f"{name}: {number(error)}" for name, error in (karras, public, every)]
            ratio = every[1] / karras[1]
            lines.append(f"| {problem} | {c} | " + " | ".join(cells) + f" | {ratio:.2f} |")
    return "\n".join(lines)


def gain(problems, calls="6"):
    """Markdown: what learned times save DPM-Solver++(2M) at few calls."""
    lines = ["| problem | Karras | learned | | decoupled | |", "|---|---:|---:|---:|---:|---:|"]
    for problem, rows in problems.items():
        cells = [rows[f"dpmpp_2m, {grid}"][calls][0] for grid in ("karras", "learned", "decoupled")]
        shown = [number(cells[0])]
        for error in cells[1:]:
            shown += [number(error), f"{error / cells[0] - 1:+.0%}"]
        lines.append(f"| {problem} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def draw(problems, path):
    """A log-log panel for each problem."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    plt.rcParams.update({"font.size": 10, "axes.edgecolor": BLACK, "font.family": "DejaVu Sans"})
    rows = -(-len(problems) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(10, 4.1 * rows + 0.8), squeeze=False)
    for axis in axes.flat[len(problems) :]:
        axis.set_axis_off()
    for axis, (problem, lines) in zip(axes.flat, problems.items(), strict=False):
        panel(axis, lines)
        axis.set_title(problem, loc="left", fontsize=11, fontweight="bold", color=BLACK)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks([5, 6, 8, 10, 15, 20], ["5", "6", "8", "10", "15", "20"])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(which="minor", length=0)
        axis.grid(True, which="major", color="#eceff2", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
    for axis in axes[-1]:
        axis.set_xlabel("denoiser calls")
    for axis in axes[:, 0]:
        axis.set_ylabel("RMS error to the fine solution")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=4, frameon=False, bbox_to_anchor=(0.5, 0)
    )
    figure.tight_layout(rect=(0, 0.09 if rows > 1 else 0.16, 1, 1), h_pad=2)
    figure.savefig(path, dpi=150)


def panel(axis, lines):
    """Grey for every solver on Karras' grid, colour for those to look at."""
    label = "every other solver, Karras grid"
    for name, cells in lines.items():
        if name.endswith(", karras") and name not in PUBLIC:
            axis.plot(*curve(cells), color=GREY, linewidth=1.1, zorder=1, label=label)
            label = None
    for group, style, width in ((PUBLIC, "--", 1.6), (OURS, "-", 2.4)):
        for name, (color, marker) in group.items():
            if name in lines:
                axis.plot(
                    *curve(lines[name]),
                    color=color,
                    marker=marker,
                    linestyle=style,
                    linewidth=width,
                    markersize=5.5,
                    markeredgecolor="white",
                    markeredgewidth=0.8,
                    zorder=3,
                    label=NAMES[name],
                )
    shown = [e for name in (*PUBLIC, *OURS) if name in lines for e in curve(lines[name])[1]]
    axis.set_xlim(4.7, 21.3)
    axis.set_ylim(min(shown) * 0.7, max(shown) * 1.6)


def curve(cells):
    """Calls spent and errors, in order and without repeats."""
    spent = sorted({calls: error for error, calls in cells.values()}.items())
    return np.transpose(spent)


TEXT = """# Which solver

Written by `python benchmarks/solvers.py runs/digits`, which also drew the picture. Root mean
square per element to the fine solution of the probability flow (Heun of hundreds of steps) from
the same noise, at equal numbers of denoiser calls. A solver that cannot spend exactly that
number takes the most steps within it; the calls it spent are then in brackets. *learned* is
`samplers.learn_grid` from the best of three grids (Karras, even in log-SNR, even in VP time),
*decoupled* is `samplers.learn_decoupled_grid` from those times, which also learns at which noise
level to ask the denoiser, and *amed* is `samplers.amed` fitted on the Karras grid: all on other
noise than the errors are of, in the plane by back-propagation and elsewhere from forward runs
alone (`samplers.smoothed`), for the digits model at 10 calls at most. Dashed lines are the
solvers of k-diffusion and diffusers as published, on the Karras grid.

![Error against calls]({picture})

DPM-Solver++(2M) in 6 calls, from the Karras grid to learned times, and to times that are learned
apart for sampler and denoiser:

{gain}

Times like these take minutes to learn, for one denoiser, one sampler and one number of steps. The
decoupled ones begin where the coupled ones end, and are for few calls: from 15 on, in many
dimensions, they gain little, and what is better on the noise they learned from can be worse on
other noise, for what is left of the error is mostly a few samples that end in another mode.

```python
fixed = denoiser, samplers.dpmpp_2m(schedule), schedule
ts, _ = samplers.learn_grid(key, *fixed, grids.karras(schedule, 6), noise)
ts, offsets, _ = samplers.learn_decoupled_grid(key, *fixed, ts, noise)
x0 = sample(key, denoiser, samplers.decoupled(schedule, samplers.dpmpp_2m, offsets), noise, ts)
```

The best of the solvers that learn nothing, on the Karras grid and on the best grid of the table,
against the best of all; the ratio is of the last to the first.

{summary}

"""


def write(results, calls, sde_calls, out):
    """solvers.md and solvers.png from what was measured."""
    problems = {name: rows for name, rows in results.items() if name != "SDE"}
    calls, sde_calls = ([str(c) for c in numbers] for numbers in (calls, sde_calls))
    text = TEXT.format(picture="solvers.png", gain=gain(problems), summary=summary(problems, calls))
    for problem, rows in problems.items():
        shown = {k: v for k, v in rows.items() if k.endswith(", karras") or not is_public(k)}
        text += f"## {problem}\n\n{table(shown, [calls[0], '6', *calls[1:]])}\n\n"
    if "SDE" in results:
        text += (
            "## Stochastic solvers\n\nSliced Wasserstein-2 distance of 8,192 samples of the "
            "mixture in the plane to 8,192 exact ones, at the samplers' defaults on the Karras "
            "grid. The first row is of other exact samples: differences below it are chance.\n\n"
            f"{table(results['SDE'], sde_calls)}\n"
        )
    (out / "solvers.md").write_text(text.rstrip() + "\n")
    draw(problems, out / "solvers.png")
    print(text)
