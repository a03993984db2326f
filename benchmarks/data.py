"""Images per second of the input pipeline alone: `python benchmarks/data.py [CONFIG.py ...]`.

With `--torch PYTHON` as the first arguments, beside torch's DataLoader and torchvision on the same
photos instead, in turns, the best of three each; PYTHON has torch and torchvision.

Digits, Fashion-MNIST where it is prepared, a folder of 1,000 JPEGs of 500 x 375 that is made
for the purpose, and the source of each config that is named. Batches of 64 as training gets
them, cropped and resized, flipped, in floats. A source in memory is read once before the
time is taken; the others begin with their workers running.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from diffjax import data
from diffjax.data import source as sources
from diffjax.errors import InputError
from diffjax.run import config

BATCH = 64
SECONDS = 5.0
PHOTOS = 1000
ROUNDS = 3


def photos(folder):
    """JPEGs as large as those of ImageNet, smooth with some noise."""
    rng = np.random.default_rng(0)
    for i in tqdm(range(PHOTOS), desc="making photos", leave=False):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(Path(folder, f"{i:04}.jpg"), quality=90)


def rate(source, workers):
    """Images per second."""
    batches = data.batches(source, BATCH, augment=(data.flip,), workers=workers)
    warm = -(-len(source.examples) // BATCH) if source.in_memory else 4 * max(workers, 1)
    for _ in range(warm):
        next(batches)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        count += len(next(batches)["x"])
    return count / (time.perf_counter() - began)


def streamed(make):
    """A source that is not held, whatever its size."""
    limit, sources.IN_MEMORY = sources.IN_MEMORY, 0
    try:
        return make()
    finally:
        sources.IN_MEMORY = limit


def rows(folder, configs):
    """Name, source and numbers of workers of each row."""
    yield "digits, in memory", data.digits(), (0,)
    try:
        source = data.tfds("fashion_mnist")
        yield "fashion_mnist, in memory", source, (0,)
        yield "fashion_mnist, streamed", streamed(lambda: data.tfds("fashion_mnist")), (0, 1, 2)
    except InputError as error:
        print(f"without Fashion-MNIST: {error}", file=sys.stderr)
    for size in (64, 256):
        source = streamed(lambda size=size: data.folder(folder, size, decode_all=False))
        yield f"folder, JPEG 500 x 375 to {size}", source, (0, 1, 2)
    for path in configs:
        source = data.load(config.load(path)().source)
        yield path, source, (0,) if source.in_memory else (0, 1, 2)


def beside_torch(python):
    """Print the rates of both for photos of three sizes."""
    print("| photos to | workers | diffjax, images/s | torch, images/s | ratio |")
    print("|---|---:|---:|---:|---:|")
    other = Path(__file__).parent / "torch_data.py"
    with tempfile.TemporaryDirectory() as folder:
        photos(folder)
        for size in (64, 256, 512):
            source = streamed(lambda size=size: data.folder(folder, size, decode_all=False))
            for workers in (0, 2):
                ours, theirs = [], []
                for _ in range(ROUNDS):
                    ours.append(rate(source, workers))
                    command = [python, other, folder, str(size), str(workers), str(SECONDS)]
                    theirs.append(float(subprocess.check_output(command)))
                a, b = max(ours), max(theirs)
                print(f"| {size} | {workers} | {a:,.0f} | {b:,.0f} | {a / b:.2f} |", flush=True)


def main(configs):
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        photos(folder)
        print(f"{os.cpu_count()} cores")
        print(f"{'':36}{'workers':>8}{'images/s':>12}")
        for name, source, counts in rows(folder, configs):
            for workers in counts:
                print(f"{name:36}{workers:8}{rate(source, workers):12,.0f}", flush=True)


if __name__ == "__main__":
    beside_torch(sys.argv[2]) if sys.argv[1:2] == ["--torch"] else main(sys.argv[1:])
