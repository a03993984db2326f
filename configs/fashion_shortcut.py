"""Fashion-MNIST in one step: a shortcut model (Frans et al. 2025) from a trained model on.

    python train.py configs/fashion_mnist.py                       # the teacher, runs/fashion_mnist
    python train.py configs/fashion_shortcut.py --teacher runs/fashion_mnist
    python sample.py runs/fashion_shortcut --steps 1

The scale of guidance is an input of the network. docs/few_step.md has the figures.
"""

from functools import partial

from digits_shortcut import jumps, shortcut
from fashion_consistency import flags
from fashion_mnist import clothes_model

from diffjax import data, recipe
from diffjax.experiment import Experiment


@recipe.flags(**flags(1200, dropped=recipe.label_dropout))
def get_config(
    train, unet, taught, dropped, smallest_steps: int = 64, data_dir: str | None = None
) -> Experiment:
    """The experiment.

    Args:
      smallest_steps: number of the shortest steps, a power of two.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    source = partial(data.tfds, "fashion_mnist", "train", data_dir)
    return jumps(shortcut(smallest_steps), *clothes_model(unet), source, train, taught, dropped)
