"""How good the digits are: `python benchmarks/digits.py samples.npz`.

Make the file with `python sample.py runs/digits --num 500 --npz samples.npz`. Prints how
often a support vector machine trained on the real digits agrees with the labels, and the
Frechet distance in pixel space to the real set over that between random halves of it. The
second is 1.15 for 500 new real digits: it is the bias of 500 + 1797 against 898 + 899.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from diffjax.evaluation import frechet_distance, moments


def distance(a, b):
    """Frechet distance of two sets of images as vectors of pixels."""
    flat = [np.asarray(x, float).reshape(len(x), -1) for x in (a, b)]
    return frechet_distance(*moments(flat[0]), *moments(flat[1]))


def halves(images, draws=20):
    """Mean distance between two random halves."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(images)) for _ in range(draws)]
    half = len(images) // 2
    return np.mean([distance(images[o[:half]], images[o[half:]]) for o in orders])


def judge():
    """(images of 0 to 255, labels) -> agreement and distance; and the distance between halves."""
    real = load_digits()
    reader = SVC(gamma=0.001).fit(real.data, real.target)

    def measure(images, labels):
        pixels = images / 255 * 16
        agree = np.mean(reader.predict(pixels.reshape(len(pixels), -1)) == labels)
        return agree, distance(pixels, real.images)

    return measure, halves(real.images)


def main(path):
    """Print both numbers."""
    with np.load(path) as file:
        samples, labels = file["samples"][..., 0], file["labels"]
    measure, reference = judge()
    agree, ours = measure(samples, labels)
    print(f"samples                              {len(samples)}")
    print(f"classifier agrees with the label     {agree:.1%}")
    print(f"Frechet distance to the real digits  {ours:.2f}")
    print(f"  between halves of the real digits  {reference:.2f}")
    print(f"  ratio                              {ours / reference:.2f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
