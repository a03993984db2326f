"""How good the clothes are: `python benchmarks/fashion_mnist.py samples.npz ...`.

Make each file with
`python sample.py runs/fashion_mnist --num 300 --guidance-scale 1 --npz samples.npz`.
Prints how often a support vector machine trained on the real images agrees with the labels,
and the Frechet distance to the training set in its first 64 principal components, both beside
the same number of real test images (mean of 20 draws, as many of each class).
"""

import sys
from functools import cache

import numpy as np
from sklearn.decomposition import PCA
from sklearn.svm import SVC

from diffjax.data import load, tfds
from diffjax.evaluation import frechet_distance, moments

COMPONENTS, DRAWS = 64, 20


def read(split):
    """Images as vectors in [0, 1], and labels."""
    examples = load(lambda: tfds("fashion_mnist", split)).examples
    rows = [examples[i] for i in range(len(examples))]
    x = np.stack([row["x"] for row in rows]).reshape(len(rows), -1)
    return x / 255, np.array([row["label"] for row in rows])


def draws(labels, wanted):
    """Random indices with as many of each class as there are in `wanted`."""
    rng = np.random.default_rng(0)
    places = {c: np.flatnonzero(labels == c) for c in np.unique(wanted)}
    counts = {c: np.sum(wanted == c) for c in places}
    for _ in range(DRAWS):
        yield np.concatenate([rng.choice(places[c], n, replace=False) for c, n in counts.items()])


def measures():
    """Two functions: (images, labels) -> agreement and distance, and labels -> those of real ones.

    Images are rows of pixels in [0, 1], labels are a tuple.
    """
    train, train_labels = read("train")
    test, test_labels = read("test")
    pca = PCA(COMPONENTS, svd_solver="covariance_eigh").fit(train)
    features = pca.transform(train)
    judge = SVC(C=10).fit(features, train_labels)
    real = moments(features)

    def measure(images, labels):
        x = pca.transform(images)
        return np.mean(judge.predict(x) == labels), frechet_distance(*moments(x), *real)

    @cache
    def of_real(labels):
        drawn = [measure(test[i], test_labels[i]) for i in draws(test_labels, np.array(labels))]
        return np.mean(drawn, axis=0)

    return measure, of_real


def main(paths):
    """Print a line for each file: agreement and distance, beside those of real images."""
    measure, of_real = measures()
    print("| file | samples | agrees | real images agree | Frechet | of real images | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for path in paths:
        with np.load(path) as file:
            samples, labels = file["samples"].reshape(len(file["labels"]), -1) / 255, file["labels"]
        agree, distance = measure(samples, labels)
        real_agree, least = of_real(tuple(labels))
        print(
            f"| {path} | {len(samples)} | {agree:.1%} | {real_agree:.1%} | {distance:.2f} "
            f"| {least:.2f} | {distance / least:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
