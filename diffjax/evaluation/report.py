"""The report: one self-contained page of figures and pictures, and one for blind judging."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError
from diffjax.evaluation import charts
from diffjax.evaluation.compare import Sets
from diffjax.evaluation.distances import nearest
from diffjax.evaluation.judging import blind_pairs, question
from diffjax.evaluation.pictures import strip, uri
from diffjax.evaluation.sides import Side
from diffjax.evaluation.sweeps import Line
from diffjax.run.best import PREFIX

PER_CLASS, CLASSES, NEIGHBOURS, EXTREMES = 8, 20, 12, 10


class Extras(NamedTuple):
    """What a workdir adds to a comparison.

    Attributes:
      rows: of metrics.jsonl.
      denoising: (n, times, H, W, C) uint8, or None.
      bits: bits per dimension of the first samples, or None.
      lengths: a metric over EMA lengths, or None.
      calls: the metric against denoiser calls, a line for each sampler.
      metric: its name.
      against: other samples, to judge against in place of real images.
    """

    rows: Sequence[Any] = ()
    denoising: np.ndarray | None = None
    bits: np.ndarray | None = None
    lengths: Line | None = None
    calls: Sequence[Line] = ()
    metric: str = ""
    against: Side | None = None


def write_report(
    out: Path,
    record: dict[str, Any],
    samples: Side,
    reference: Side,
    judged: Sets,
    real: Sets | None,
    extras: Extras = Extras(),  # noqa: B008
) -> list[Path]:
    """Write report.html and judge.html.

    Args:
      out: folder.
      record: what metrics.json holds.
      samples: the side that is judged.
      reference: the real side; without images where it holds statistics alone.
      judged: features of the samples.
      real: features of the reference, or None.
      extras: what else there is to show.

    Returns:
      The files written.

    Raises:
      InputError: jinja2 or matplotlib is not installed.
    """
    templates, e = _templates(), extras
    other = e.against or (reference if real is not None else None)
    page = templates.get_template("report.html").render(
        record=record,
        shares=charts.shares(record["metrics"]),
        classes=by_class(samples, reference if real is not None else None),
        neighbours=closest_pairs(samples, reference, judged, real) if real is not None else [],
        denoising=[strip(list(frames)) for frames in ([] if e.denoising is None else e.denoising)],
        extremes=extremes(samples, e.bits),
        training=charts.training(e.rows, PREFIX),
        lengths=charts.sweep([e.lengths], "EMA length", e.metric) if e.lengths else "",
        calls=charts.sweep(e.calls, "denoiser calls", e.metric, True) if e.calls else "",
        lines=e.calls,
        judge=other is not None,
    )
    files = {"report.html": page}
    if other is not None:
        asked = question(samples, other, e.against is None)
        pairs = blind_pairs(samples, other, record["seed"])
        judge = templates.get_template("judge.html")
        files["judge.html"] = judge.render(pairs=pairs, question=asked._asdict())
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


def by_class(samples: Side, reference: Side | None) -> list[dict]:
    """Samples beside real images, a row of each for every class: pictures and what they show."""
    sides = [("samples", samples)] + ([("real images", reference)] if reference else [])
    labelled = all(side.labels is not None for _, side in sides)
    rows = []
    for c in np.unique(sides[-1][1].labels)[:CLASSES] if labelled else [None] * 4:
        row = {"name": "" if c is None else f"class {c}", "pictures": []}
        for kind, side in sides:
            first = len(rows) * PER_CLASS
            every = np.arange(len(side.images))
            chosen = every[first:] if c is None else np.flatnonzero(side.labels == c)
            shown = [side.images[i] for i in chosen[:PER_CLASS]]
            of = "" if c is None else f" of class {c}"
            if shown:
                row["pictures"].append((strip(shown), f"{len(shown)} {kind}{of}"))
        rows.append(row)
    return [row for row in rows if row["pictures"]]


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


def extremes(samples: Side, bits: np.ndarray | None) -> list[dict]:
    """The most and the least likely samples, with their bits per dimension."""
    if bits is None:
        return []
    order, rows = np.argsort(bits), []
    for name, chosen in (("most", order[:EXTREMES]), ("least", order[::-1][:EXTREMES])):
        values = bits[chosen]
        text = f"{values.min():.2f} to {values.max():.2f} bits/dim"
        picture = strip([samples.images[i] for i in chosen])
        rows.append({"name": f"The {name} likely", "picture": picture, "text": text})
    return rows
