"""Which metric sees which corruption: `python benchmarks/metrics.py [--write docs/evaluation.md]`.

Scikit-learn's digits in three parts: 600 train a classifier for the features, 600 are the
reference, 597 are samples, real ones to begin with, and then corrupted. Each corruption is
compared with the uncorrupted samples of the same split, over five splits.
"""

import io
import sys
from pathlib import Path

import numpy as np
import scipy.ndimage
from PIL import Image
from sklearn.datasets import load_digits
from tables import write_between

from diffjax.evaluation import classifier, compare

SPLITS = 5
BEGIN, END = "<!-- begin table -->", "<!-- end table -->"


def noise(rng, x, y, train):
    """Normal noise of 20 grey levels."""
    return np.clip(x + rng.normal(0, 20, x.shape), 0, 255).astype(np.uint8), y


def blur(rng, x, y, train):
    """Gaussian blur of sigma 0.5 pixels."""
    return scipy.ndimage.gaussian_filter(x.astype(float), (0, 0.5, 0.5, 0)).astype(np.uint8), y


def jpeg(rng, x, y, train):
    """JPEG of quality 30."""

    def through(image):
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0]).save(buffer, "JPEG", quality=30)
        return np.asarray(Image.open(buffer))[..., None]

    return np.stack([through(image) for image in x]), y


def dropped_class(rng, x, y, train):
    """No image of class 3; others in their place."""
    rows = rng.choice(np.flatnonzero(y != 3), len(x))
    rows[: np.sum(y != 3)] = np.flatnonzero(y != 3)
    return x[rows], y[rows]


def duplicates(rng, x, y, train):
    """Each of a tenth of the images ten times."""
    rows = np.arange(len(x)) % (len(x) // 10)
    return x[rows], y[rows]


def copies(rng, x, y, train):
    """A fifth replaced by images of the reference."""
    x, y, count = x.copy(), y.copy(), len(x) // 5
    x[:count], y[:count] = train[0][:count], train[1][:count]
    return x, y


def wrong_labels(rng, x, y, train):
    """A fifth of the labels shifted by one."""
    y = y.copy()
    y[: len(y) // 5] = (y[: len(y) // 5] + 1) % 10
    return x, y


CORRUPTIONS = (noise, blur, jpeg, dropped_class, duplicates, copies, wrong_labels)


def measure(seed, extractor, x, y):
    """Metric values of the uncorrupted samples and of each corruption, for one split."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    real, fake = order[:600], order[600:]

    def sets(images, labels):
        return compare.Sets(labels=labels, **extractor.all_of(images))

    reference = sets(x[real], y[real])
    found = []
    for corrupt in (lambda rng, x, y, train: (x, y), *CORRUPTIONS):
        samples = sets(*corrupt(rng, x[fake], y[fake], (x[real], y[real])))
        families = compare.metrics_of("Frechet distance", reference, samples)
        values = compare.values_of(families, reference, samples)
        found.append(list(values.values()))
    return list(values), np.array(found)


def rows_of(names, values):
    """Markdown: mean over splits, bold where the mean difference to none exceeds its error."""
    heads = ["none", *(f.__name__.replace("_", " ") for f in CORRUPTIONS)]
    lines = ["| metric | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    differences = values - values[:, :1]
    mean, error = differences.mean(axis=0), differences.std(axis=0, ddof=1) / np.sqrt(SPLITS)
    seen = np.abs(mean) > 4 * error + 1e-12
    for j, name in enumerate(names):
        cells = [f"{v:.3g}" for v in values[:, :, j].mean(axis=0)]
        cells = [f"**{c}**" if s else c for c, s in zip(cells, seen[:, j], strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv):
    """Measure, print, and put the table between its marks in a document."""
    data = load_digits()
    x, y = np.round(data.images[..., None] * 255 / 16).astype(np.uint8), data.target
    params = classifier.train_classifier(x[:600], y[:600], 10)
    extractor = classifier.classifier_features(params)
    results = []
    for seed in range(SPLITS):
        names, found = measure(seed, extractor, x[600:], y[600:])
        results.append(found)
        print(f"split {seed + 1} of {SPLITS}", file=sys.stderr)
    text = rows_of(names, np.array(results))
    print(text)
    if argv[:1] == ["--write"]:
        write_between(Path(argv[1]), BEGIN, END, text)


if __name__ == "__main__":
    main(sys.argv[1:])
