"""The counterpart of `benchmarks/data.py` in torch: run by it, with an interpreter that has torch.

    PYTHON benchmarks/torch_data.py FOLDER SIZE WORKERS SECONDS

Prints the images per second of torch's DataLoader with torchvision's transforms: decoded by PIL,
the shorter side resized with antialiasing, the centre cropped, flipped, in floats of [-1, 1].
"""

import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Photos(Dataset):
    """The JPEGs of a folder."""

    def __init__(self, folder, size):
        self.paths = sorted(Path(folder).glob("*.jpg"))
        self.transform = transforms.Compose(
            [
                transforms.Resize(size),
                transforms.CenterCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


def forever(loader):
    """Epoch after epoch."""
    while True:
        yield from loader


def main(folder, size, workers, seconds):
    """Measure, once the workers run."""
    torch.set_num_threads(1)
    options = {"persistent_workers": True} if workers else {}
    photos = Photos(folder, size)
    loader = DataLoader(photos, 64, shuffle=True, num_workers=workers, drop_last=True, **options)
    batches = forever(loader)
    for _ in range(4 * max(workers, 1)):
        next(batches)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        count += len(next(batches))
    print(count / (time.perf_counter() - began))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]), float(sys.argv[4]))
