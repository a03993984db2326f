"""Fashion-MNIST in one step: consistency training (Song & Dhariwal 2024) from a trained model on.

    python train.py configs/fashion_mnist.py                       # the teacher, runs/fashion_mnist
    python train.py configs/fashion_ict.py --teacher runs/fashion_mnist
    python sample.py runs/fashion_ict --steps 1

With a teacher the scale of guidance is an input. docs/few_step.md has the figures.
"""

from functools import partial

from digits_ict import POINTS, from_data
from fashion_consistency import flags
from fashion_mnist import clothes_model

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment


@recipe.flags(**flags(1200, dropped=recipe.label_dropout))
def get_config(train, unet, taught, dropped, data_dir: str | None = None) -> Experiment:
    """The experiment.

    Args:
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    distance = distill.pseudo_huber(0.1)
    loss_of = partial(distill.consistency_training, distance=distance, points=POINTS)
    source = partial(data.tfds, "fashion_mnist", "train", data_dir)
    return from_data(loss_of, *clothes_model(unet), source, train, taught, dropped)
