"""The report: one self-contained page of figures and pictures, and one for blind judging."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.evaluation.compare import Sets
from diffjax.evaluation.distances import nearest
from diffjax.evaluation.sides import Side

PER_CLASS, CLASSES, NEIGHBOURS, PAIRS = 10, 10, 12, 40
SHOWN = 96
"""Pixels of a side at which pictures are shown at least."""


def write_report(
    out: Path,
    record: dict[str, Any],
    samples: Side,
    reference: Side,
    judged: Sets,
    real: Sets | None,
) -> list[Path]:
    """Write report.html and judge.html.

    Args:
      out: folder.
      record: what metrics.json holds.
      samples: the side that is judged.
      reference: the real side; without images where it holds statistics alone.
      judged: features of the samples.
      real: features of the reference, or None.

    Returns:
      The files written.

    Raises:
      InputError: jinja2 or matplotlib is not installed.
    """
    templates = _templates()
    pictures = rows_by_class(samples, reference) if real is not None else []
    page = templates.get_template("report.html").render(
        record=record,
        chart=chart(record["metrics"]) if real is not None else "",
        rows=[(name, [(uri(image), alt) for image, alt in row]) for name, row in pictures],
        neighbours=closest_pairs(samples, reference, judged, real) if real is not None else [],
    )
    files = {"report.html": page}
    if real is not None:
        pairs = blind_pairs(samples, reference, record["seed"])
        files["judge.html"] = templates.get_template("judge.html").render(pairs=pairs)
    for name, text in files.items():
        (out / name).write_text(text)
    return [out / name for name in files]


def _templates():
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the report needs {error.name}: pip install diffjax[report], or give --no-report."
        ) from error
    folder = Path(__file__).parent / "templates"
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True
    )


def uri(image: np.ndarray) -> str:
    """A PNG of an image (H, W, C) uint8 as a data URI, small ones enlarged by a whole factor."""
    from PIL import Image

    factor = max(1, -(-SHOWN // max(image.shape[:2])))
    image = (image[..., 0] if image.shape[-1] == 1 else image).repeat(factor, 0).repeat(factor, 1)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def rows_by_class(samples: Side, reference: Side) -> list[tuple[str, list]]:
    """Samples beside real images, a row per class and side: (name, [(image, alt text)])."""
    labelled = samples.labels is not None and reference.labels is not None
    rows = []
    for c in np.unique(reference.labels)[:CLASSES] if labelled else [None]:
        for side, kind in ((samples, "sample"), (reference, "real image")):
            chosen = np.arange(len(side.images)) if c is None else np.flatnonzero(side.labels == c)
            chosen = chosen[:PER_CLASS]
            of = "" if c is None else f" of class {c}"
            row = [(side.images[i], f"{kind}{of}") for i in chosen]
            rows.append((f"{kind}s{of}", row))
    return rows


def closest_pairs(samples: Side, reference: Side, judged: Sets, real: Sets) -> list[dict]:
    """The samples nearest to a real image, each beside it: where copies would show."""
    a, b = (np.asarray(s.features, float) for s in (judged, real))
    distances, index = nearest(a, b)
    order = np.argsort(distances[:, 0])[:NEIGHBOURS]
    return [
        {
            "sample": uri(samples.images[i]),
            "real": uri(reference.images[index[i, 0]]),
            "text": f"sample {i}, real image {index[i, 0]}, distance {distances[i, 0]:.3g}",
        }
        for i in order
    ]


def blind_pairs(samples: Side, reference: Side, seed: int) -> list[dict]:
    """Pairs of a sample and a real image of one class in random order, for the judging page."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(PAIRS):
        i = rng.integers(len(samples.images))
        among = np.arange(len(reference.images))
        if samples.labels is not None and reference.labels is not None:
            among = np.flatnonzero(reference.labels == samples.labels[i])
        if not len(among):
            continue
        images = [uri(samples.images[i]), uri(reference.images[rng.choice(among)])]
        real_is_a = bool(rng.integers(2))
        a, b = reversed(images) if real_is_a else images
        pairs.append({"a": a, "b": b, "real": "A" if real_is_a else "B"})
    return pairs


def chart(metrics: dict[str, dict]) -> str:
    """An SVG of the metrics that lie in [0, 1]: value, interval and floor."""
    from matplotlib.figure import Figure

    names = ("precision", "recall", "density", "coverage", "authenticity", "classifier agreement")
    shown = [(name, metrics[name]) for name in names if name in metrics][::-1]
    figure = Figure(figsize=(6, 0.45 * len(shown) + 0.8))
    axes = figure.subplots()
    for i, (_, m) in enumerate(shown):
        if m["low"] is not None:
            axes.plot([m["low"], m["high"]], [i, i], color="#3b82f6", linewidth=3)
        axes.plot(m["value"], i, "o", color="#3b82f6", label=None if i else "samples")
        if m["floor"] is not None:
            axes.plot(m["floor"], i, "d", color="#f59e0b", label=None if i else "real against real")
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], color="#888888")
    axes.tick_params(colors="#888888")
    axes.grid(axis="x", alpha=0.3)
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 2}
    axes.legend(frameon=False, labelcolor="#888888", **place)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.tight_layout()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def win_rate(choices: Iterable[bool]) -> tuple[float, float, float]:
    """Share of judgements that took the sample for real, with Wilson's 95% interval.

    Args:
      choices: True where the sample was chosen.

    Returns:
      Rate, low and high: Wilson 1927; 1/2 means that nobody can tell.

    Raises:
      InputError: there is no judgement.
    """
    choices = [*choices]
    if not choices:
        raise InputError("there are no judgements yet; open judge.html.")
    n, z = len(choices), 1.959964
    p = sum(choices) / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, float(centre - reach), float(centre + reach)
