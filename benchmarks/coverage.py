"""How often the intervals hold: `python benchmarks/coverage.py [--write docs/evaluation.md]`.

Real against real: 100 times two independent sets of 300 points of one Gaussian mixture in 16
dimensions, with labels and the exact class probabilities as logits. A metric's interval should
hold the metric's mean over the 100 seeds (for KID that is 0) in 95 of them.
"""

import sys
from pathlib import Path

import numpy as np
from tables import write_between

from diffjax.evaluation import compare
from diffjax.evaluation.training import cheap

SEEDS, NUM, DIM, CLASSES, GROUPS = 100, 300, 16, 5, 10
BEGIN, END = "<!-- begin coverage -->", "<!-- end coverage -->"


def points(rng, middles):
    """Points of the mixture with their labels and the log probabilities of the classes."""
    labels = rng.integers(CLASSES, size=NUM)
    x = middles[labels] + rng.standard_normal((NUM, DIM))
    logits = x @ middles.T - (middles**2).sum(axis=1) / 2
    return compare.Sets(x, logits, labels)


def main(argv):
    """Measure, print, and put the table between its marks in a document."""
    middles = 1.5 * np.random.default_rng(0).standard_normal((CLASSES, DIM)) / np.sqrt(2)
    values, ends = {}, {}
    for seed in range(SEEDS):
        rng = np.random.default_rng((1, seed))
        real, other = points(rng, middles), points(rng, middles)
        families = cheap(real, other)
        for name, figure in compare.compare(families, real, other, GROUPS)[0].items():
            values.setdefault(name, []).append(figure.value)
            ends.setdefault(name, []).append((figure.low, figure.high))
        print(f"seed {seed + 1} of {SEEDS}", file=sys.stderr, end="\r")
    lines = [
        "| metric | mean | spread over seeds | mean half width | held |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in values.items():
        low, high = np.array(ends[name]).T
        mean = 0.0 if name == "KID" else np.mean(found)
        held = np.mean((low <= mean) & (mean <= high))
        width = np.mean(high - low) / 2
        cells = f"{np.mean(found):.3g} | {np.std(found, ddof=1):.2g} | {width:.2g} | {held:.0%}"
        lines.append(f"| {name} | {cells} |")
    text = "\n".join(lines)
    print(text)
    if argv[:1] == ["--write"]:
        write_between(Path(argv[1]), BEGIN, END, text)


if __name__ == "__main__":
    main(sys.argv[1:])
