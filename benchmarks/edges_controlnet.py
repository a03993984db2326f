"""Whether a ControlNet draws along the edges it is given.

    python benchmarks/edges_controlnet.py runs/edges [--picture docs/controlnet.png]

Draws from the edges of the images that training left out (configs/edges_controlnet.py) and takes
the edges of what is drawn. Their agreement with the asked ones is the mean of F = 2 P R / (P + R),
P and R being the shares of drawn and of asked edge pixels with one of the other kind at most one
pixel away. Beside it stands how often a support vector machine, trained on the other images, reads
the label of the image that the edges are of.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from scipy import ndimage
from sklearn.svm import SVC

from diffjax import data, parallel
from diffjax.data.canny import edges, with_edges
from diffjax.media import save_png
from diffjax.run.draw import make_draw
from diffjax.run.weights import from_run, load_frozen
from diffjax.run.workdir import read_record

AROUND = np.ones((3, 3))
SOURCES = {"digits": data.digits, "fashion_mnist": lambda: data.tfds("fashion_mnist", "train")}
COLUMNS = 12


def agreement(drawn, asked):
    """F of two pictures of edges (H, W) bool."""
    near = [ndimage.binary_dilation(e, AROUND) for e in (drawn, asked)]
    precision = (drawn & near[1]).sum() / max(drawn.sum(), 1)
    recall = (asked & near[0]).sum() / max(asked.sum(), 1)
    return 2 * precision * recall / max(precision + recall, 1e-9)


def draws(model, params, raw, scale, seed=0):
    """Images (N, H, W, C) of raw conditions, with the model's own sampler."""
    usual, num = model.sampling, len(next(iter(raw.values())))
    draw = make_draw(model, usual.sampler, usual.options, scale != 1)
    ts = usual.grid(model.schedule, usual.steps, **usual.grid_options)
    frozen = load_frozen(model.frozen, parallel.make_mesh(devices=jax.devices()[:1]))
    return draw.samples(params, frozen, jax.random.key(seed), ts, raw, num, scale)[0]


def others(labels, rng):
    """For each image the index of another one of its class."""
    places = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    return np.array([rng.choice(places[c][places[c] != i]) for i, c in enumerate(labels)])


def sheet(rows, columns=COLUMNS, side=64, gap=4):
    """Rows of images (N, h, w) in [0, 1] under each other, each `side` pixels wide."""
    lines = []
    for row in rows:
        tiles = [
            np.pad(np.kron(x, np.ones((side // x.shape[0],) * 2)), gap // 2, constant_values=0.35)
            for x in row[:columns]
        ]
        lines.append(np.concatenate(tiles, axis=1))
    return (255 * np.concatenate(lines)[..., None]).astype(np.uint8)


def unit(x):
    """Images as (N, H, W) in [0, 1]."""
    x = np.asarray(x)[..., 0]
    return x / 255 if x.dtype == np.uint8 else np.clip((x + 1) / 2, 0, 1)


def main(workdir, picture, most):
    """Print the table, and draw the picture."""
    options = read_record(workdir)["options"]
    source = data.load(SOURCES[options["images"]])
    trained, base = from_run(workdir), from_run(options["base"])
    shape = dict(trained.model.conditions[-1].example)["edges"].shape
    find = edges(shape[0])
    count = len(source.examples) - options["held_out"]
    held = with_edges(source, find)
    rows = [held.examples[i] for i in range(count, min(count + most, len(source.examples)))]
    real, label, asked = (np.stack([row[k] for row in rows]) for k in ("x", "label", "edges"))
    label = label.astype(np.int32)
    nothing = np.full_like(label, 10)
    scale, params = trained.model.sampling.guidance_scale, trained.load()
    drawn = {
        "the base, label": draws(base.model, base.load(), {"label": label}, scale),
        "the base, no label": draws(base.model, base.load(), {"label": nothing}, 1.0),
        "ControlNet, label and edges": draws(
            trained.model, params, {"label": label, "edges": asked}, scale
        ),
        "ControlNet, edges alone": draws(
            trained.model, params, {"label": nothing, "edges": asked}, 1.0
        ),
    }
    rng = np.random.default_rng(0)
    drawn["another real image of the class"] = real[others(label, rng)]
    drawn["the real image"] = real
    limit = min(count, 6000)
    learned = [source.examples[i] for i in range(limit)]
    flat = lambda x: unit(x).reshape(len(x), -1) * 16  # noqa: E731
    judge = SVC(gamma=0.001 if options["images"] == "digits" else "scale", C=10)
    judge.fit(flat(np.stack([e["x"] for e in learned])), [e["label"] for e in learned])
    print(f"{len(rows)} images that training left out; edges at {shape[0]}x{shape[1]}")
    print("\n| drawn from | edges agree (F) | reads the label |\n|---|---:|---:|")
    for name, x in drawn.items():
        found = [find(image)[..., 0] > 0 for image in x]
        f = [agreement(a, b[..., 0] > 0) for a, b in zip(found, asked, strict=True)]
        error = np.std(f) / np.sqrt(len(f))
        right = np.mean(judge.predict(flat(x)) == label)
        print(f"| {name} | {np.mean(f):.3f} ± {error:.3f} | {right:.1%} |")
    if picture:
        first = np.argsort(label, kind="stable")[:: max(1, len(label) // COLUMNS)]
        kinds = ("ControlNet, label and edges", "ControlNet, edges alone", "the base, label")
        shown = [unit(asked), *(unit(drawn[kind]) for kind in kinds), unit(real)]
        save_png(picture, sheet([x[first] for x in shown]))
        print(f"\nrows of {picture}: edges, {', '.join(kinds)}, the real image")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--most", type=int, default=300, help="images to draw from")
    given = parser.parse_args()
    main(given.workdir, given.picture, given.most)
