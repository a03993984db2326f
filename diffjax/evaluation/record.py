"""What metrics.json holds, the table that is printed, and where the figures come from."""

import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffjax.evaluation import compare, sides
from diffjax.evaluation.comparison import Comparison
from diffjax.evaluation.drawn import Run
from diffjax.run import best as kept


def describe(
    comparison: Comparison, samples: sides.Side, run: Run | None, notes: list[str]
) -> dict[str, Any]:
    """Everything that a reader needs to place the figures and to make them again.

    Args:
      comparison: with the reference, the extractor and the flags.
      samples: the side that is judged.
      run: that drew it, or None.
      notes: sentences.

    Returns:
      A part of metrics.json.
    """
    asked, extractor = comparison.asked, comparison.extractor
    groups = asked["groups"]
    best = kept.recorded(run.workdir) if run else None
    return {
        "version": importlib.metadata.version("diffjax"),
        "commit": commit(),
        "seed": asked["seed"],
        "training_seed": run.experiment.seed if run else None,
        "weights": run.name if run else None,
        "best": best._asdict() if best and best.step >= 0 else None,
        "features": {
            "name": extractor.name,
            "fingerprint": extractor.fingerprint,
            "canonical": extractor.canonical,
        },
        "samples": described(samples),
        "reference": described(comparison.reference),
        "interval": compare.INTERVAL.format(groups=groups) if groups else "none",
        "floor": "a part of the reference against the rest of it",
        "notes": notes,
    }


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write metrics.json, with null where there is no number."""
    path.write_text(json.dumps(without_nan(record), indent=2) + "\n")


def print_table(record: Mapping[str, Any]) -> None:
    """The figures as a table, with everything a reader needs to place them."""
    print(f"features: {record['features']['name']}")
    for side in ("samples", "reference"):
        print(f"{side}: {record[side]['num']:,} images of {record[side]['name']}")
    print(f"interval: {record['interval']}")
    width = max(map(len, record["metrics"]))
    print(f"{'':{width}}  {'value':>10}  {'interval':>23}  {'floor':>10}  better")
    for name, figure in record["metrics"].items():
        interval = "-" if figure["low"] is None else f"{figure['low']:.4g} to {figure['high']:.4g}"
        floor = "-" if figure["floor"] is None else f"{figure['floor']:.4g}"
        row = f"{figure['value']:>10.4g}  {interval:>23}  {floor:>10}  {figure['better']}"
        print(f"{name:{width}}  {row}")
    for row in record["judgements"]:
        what = "taken for real" if row["real"] else f"preferred to {row['other']}"
        print(
            f"judged: {what} in {100 * row['value']:.0f}% of {row['num']} pairs "
            f"({100 * row['low']:.0f}% to {100 * row['high']:.0f}%)"
        )
    for note in record["notes"]:
        print(f"note: {note}")


def described(side: sides.Side) -> dict[str, Any]:
    """Name, number of images and fingerprint of a side."""
    return {"name": side.name, "num": len(side.images), "fingerprint": side.fingerprint}


def plain(figure: compare.Figure) -> dict[str, Any]:
    """A figure as JSON: null where there is no number."""
    return without_nan(figure._asdict())


def without_nan(value: Any) -> Any:
    """The same JSON with null in place of nan."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
    return None if value != value else value


def commit() -> str:
    """The commit of this code, or "unknown"."""
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"
