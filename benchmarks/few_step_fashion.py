"""Fashion-MNIST in few steps, all methods: `python benchmarks/few_step_fashion.py runs`.

Draws 300 clothes of each trained workdir in the folder (see ROWS), --draws times and without
guidance, and prints a table: the Frechet distance to the training set in 64 principal components
over that of as many real test images (benchmarks/fashion_mnist.py), its lowest and highest of the
draws, and how often a classifier agrees with the label. Cost is of all training, in steps of the
teacher's own training, counted in multiplications. Draws are kept in the workdirs and made anew
only for newer checkpoints. The folder fashion_mnist_tuned is a copy of fashion_mnist on which
`python -m diffjax.tune --guidance-scale 1` was run.
"""

import numpy as np
from fashion_mnist import measures
from few_step_table import STEPS, Comparison, Row, main

NUM = 300

ROWS = (
    Row("teacher, DDIM", "fashion_mnist", (*STEPS, 50), sampler="ddim"),
    Row("teacher, tuned", "fashion_mnist_tuned", (4, 6, 8), tuned=True),
    Row("consistency distillation", "fashion_consistency"),
    Row("shortcut", "fashion_shortcut"),
    Row("iCT", "fashion_ict"),
)


def judge():
    """Images of a draw -> ratio of distances, and share of agreement."""
    measure, of_real = measures()
    labels = np.arange(NUM) % 10
    _, least = of_real(tuple(labels))

    def ratio(images):
        agree, distance = measure(images.reshape(NUM, -1) / 255, labels)
        return distance / least, agree

    return ratio


if __name__ == "__main__":
    main(__doc__, Comparison(ROWS, NUM, judge, range(1, 10, 2), 4, guidance_scale=1.0))
