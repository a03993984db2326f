"""Digits before and after a reward: `python benchmarks/rewards.py before.npz draft.npz ...`.

    python sample.py runs/digits --num 300 --guidance-scale 1 --seed 1 --out before.npz
    python sample.py runs/digits_draft --num 300 --seed 1 --out draft.npz
    python benchmarks/rewards.py before.npz draft.npz --picture rewards.png

The reward is that of configs/digits_draft.py, with its standard error. A classifier of real digits
says whether they are still what their label says, and the Frechet distance to the real ones, over
that between halves of these, how much of their variety is left.
"""

import argparse
from pathlib import Path

import numpy as np
from digits import judge
from few_step_table import strip
from PIL import Image


def reward(x0):
    """That of configs/digits_draft.py."""
    return -np.mean(np.abs(x0 - x0[:, :, ::-1]), axis=(1, 2, 3))


def main():
    """Print the table and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="what sample.py wrote")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    (measure, reference), strips = judge(), []
    print("| draws of | reward | read as their label | Frechet ratio |\n|---|---:|---:|---:|")
    for path in arguments.files:
        with np.load(path) as file:
            images, labels = file["samples"], file["labels"]
        rewards = reward(images / 127.5 - 1)
        agree, distance = measure(images[..., 0], labels)
        error, ratio = rewards.std() / np.sqrt(len(rewards)), distance / reference
        print(f"| {path.stem} | {rewards.mean():.3f} ± {error:.3f} | {agree:.1%} | {ratio:.2f} |")
        shown = np.asarray(strip(images[:20, ..., 0], 5))
        strips.append(np.pad(shown, ((0, 8), (0, 0)), constant_values=255))
    if arguments.picture:
        Image.fromarray(np.concatenate(strips)).save(arguments.picture)


if __name__ == "__main__":
    main()
