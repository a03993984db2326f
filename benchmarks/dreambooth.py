"""DreamBooth of one emoji: its pictures, and a sheet of what was drawn.

    python benchmarks/dreambooth.py pictures --caption "teddy bear" --out pictures
    python benchmarks/dreambooth.py sheet --pictures pictures --rows a.npz b.npz --out docs/d.png

The first writes five pictures of an emoji that the bases never saw, turned, moved and scaled. The
second prints, of each npz of sample.py, the distance of its draws to the nearest of the pictures
(root mean square over pixels in [0, 1]) and among themselves.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from diffjax import data

FORMS = [(0, 0, 0, 1.0), (-10, 2, 0, 0.95), (12, -2, 1, 0.9), (-5, 0, -2, 0.85), (6, 2, 2, 1.0)]
"""Degrees, pixels to the right, pixels down, and scale, of 64 pixels."""


def pictures(caption, out):
    """Five pictures of an emoji of the test split."""
    examples = data.emoji("test", 64).examples
    found = next(e["x"] for e in (examples[i] for i in range(len(examples)))
                 if str(e["caption"]) == caption)  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for i, (degrees, right, down, scale) in enumerate(FORMS):
        turned = Image.fromarray(found).rotate(
            degrees, Image.Resampling.BICUBIC, translate=(right, down), fillcolor=(255,) * 3
        )
        side = round(64 * scale)
        whole = Image.new("RGB", (64, 64), (255,) * 3)
        small = turned.resize((side, side), Image.Resampling.BICUBIC)
        whole.paste(small, ((64 - side) // 2,) * 2)
        whole.save(out / f"{i}.png")


def sheet(folder, rows, out, columns=10, side=64):
    """The pictures and the rows, each under the other; distances are printed."""
    samples = {path: np.load(path)["samples"] for path in rows}
    size = next(iter(samples.values())).shape[1]
    examples = data.images(folder, size).examples
    given = np.stack([examples[i]["x"] for i in range(len(examples))])
    for path, drawn in samples.items():
        apart = distances(drawn, drawn)[~np.eye(len(drawn), dtype=bool)].mean()
        near = distances(drawn, given).min(1).mean()
        print(f"{path}: to the pictures {near:.3f}, among themselves {apart:.3f}")
    lines = [given, *(drawn[:columns] for drawn in samples.values())]
    canvas = Image.new("RGB", (columns * (side + 4), len(lines) * (side + 4)), (255,) * 3)
    for i, line in enumerate(lines):
        for j, x in enumerate(line):
            tile = Image.fromarray(x).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(tile, (j * (side + 4) + 2, i * (side + 4) + 2))
    canvas.save(out)


def distances(one, other):
    """Root mean squares of all differences (N, M)."""
    one, other = (a.reshape(len(a), -1) / 255 for a in (one, other))
    return np.sqrt(((one[:, None] - other[None]) ** 2).mean(-1))


def main():
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("pictures", "sheet"))
    parser.add_argument("--caption", default="teddy bear")
    parser.add_argument("--pictures", type=Path, default=Path("pictures"))
    parser.add_argument("--rows", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    a = parser.parse_args()
    if a.what == "pictures":
        pictures(a.caption, a.out)
    else:
        sheet(a.pictures, a.rows, a.out)


if __name__ == "__main__":
    main()
