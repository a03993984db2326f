"""Fashion-MNIST in one step: consistency distillation (Song et al. 2023) of a trained model.

    python train.py configs/fashion_mnist.py                       # the teacher, runs/fashion_mnist
    python train.py configs/fashion_consistency.py --teacher runs/fashion_mnist
    python sample.py runs/fashion_consistency --steps 1

The scale of guidance is an input of the student. docs/few_step.md has the figures.
"""

from functools import partial

from digits_consistency import consistency
from fashion_mnist import UNET, clothes_model

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment


def flags(steps: int, **others) -> dict:
    """Flags of a student of so many training steps."""
    training = {"steps": steps, "batch_size": 32, "lr": 5e-4, "ema_decay": 0.99}
    return {
        "train": recipe.defaults(recipe.cosine_adam, **training),
        "unet": UNET,
        "taught": recipe.defaults(distill.teaching, teacher="runs/fashion_mnist"),
        **others,
    }


@recipe.flags(**flags(800))
def get_config(
    train, unet, taught, solver_steps: int = 16, data_dir: str | None = None
) -> Experiment:
    """The experiment.

    Args:
      solver_steps: Heun steps of the teacher between noise and data, even in time.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    source = partial(data.tfds, "fashion_mnist", "train", data_dir)
    return consistency(*clothes_model(unet), source, train, taught, solver_steps)
