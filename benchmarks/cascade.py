"""A cascade against one stage, of emoji: distance to the real ones, and a picture.

    python benchmarks/emoji.py prompts FOLDER     # seen.txt and unseen.txt, 100 captions each
    python sample.py runs/emoji_cascade --prompt @FOLDER/seen.txt --npz FOLDER/cascade_seen.npz
    python sample.py runs/emoji_64 --prompt @FOLDER/seen.txt --npz FOLDER/one_stage_seen.npz
    ...                                           # and unseen
    python benchmarks/cascade.py FOLDER [--picture docs/cascade.png]

Of the samples of each model, those of seen and of unseen captions together, the Frechet distance to
all real emoji by EfficientNet-lite0's features (extra `eval`), and its floor: that of the real
emoji with these captions. Of a cascade also how near a large picture, made small again, is to the
small one that it was drawn from. `python benchmarks/emoji.py judge FOLDER` has the captions.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from emoji import SPLITS, chosen

from diffjax import data, media
from diffjax.evaluation.features import efficientnet_features
from diffjax.evaluation.frechet import fid
from diffjax.evaluation.pairs import psnr

COLUMNS = 16


def read(folder, name):
    """The arrays of a model's samples, of seen and then of unseen captions."""
    parts = [np.load(folder / f"{name}_{kind}.npz") for kind in SPLITS]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0].files}


def small_again(images, side):
    """Large pictures made small, as the second stage's data are, uint8."""
    return media.to_uint8(np.stack([data.reduced(image, side) for image in images]))


def table(drawn, real):
    """Print the distances."""
    features = efficientnet_features().function
    everything = features(data.emoji("all").examples.arrays["x"])
    print(f"Frechet distance of {len(real)} pictures to all {len(everything):,} real ones")
    print("\n| pictures | Frechet distance | made small again, dB |\n|---|---:|---:|")
    for name, arrays in {"real": {"samples": real}, **drawn}.items():
        distance, kept = fid(features(arrays["samples"]), everything), "-"
        if "small_drawn" in arrays:
            small = media.to_uint8(arrays["small_drawn"])
            again = small_again(arrays["samples"], small.shape[1])
            kept = f"{psnr(small, again, 255).mean():.1f}"
        print(f"| {name.replace('_', ' ')} | {distance:.1f} | {kept} |")


def sheet(drawn, real):
    """For the first captions of each split: small, large, the other models, real."""
    cascade = drawn["cascade"]
    small = media.to_uint8(cascade["small_drawn"])
    factor = real.shape[1] // small.shape[1]
    rows = [small.repeat(factor, 1).repeat(factor, 2), *(a["samples"] for a in drawn.values())]
    blocks = []
    for start in (0, len(real) // 2):
        shown = slice(start, start + COLUMNS)
        blocks.append(media.grid(np.concatenate([row[shown] for row in [*rows, real]]), COLUMNS))
    gap = np.full((12, blocks[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([blocks[0], gap, blocks[1]])


def main(folder, names, picture):
    """Print the table, and draw the picture."""
    drawn = {name: read(folder, name) for name in names}
    count = len(next(iter(drawn.values()))["samples"]) // len(SPLITS)
    real = np.concatenate([chosen(kind)["x"][:count] for kind in SPLITS])
    if picture:
        media.save_png(picture, sheet(drawn, real))
        print(f"rows of {picture}: small pictures, {', '.join(names)}, real; seen, then unseen")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer pictures than features: the floor has it too
        table(drawn, real)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="*", default=["cascade", "one_stage"])
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    main(given.folder, given.names, given.picture)
