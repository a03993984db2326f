"""Fashion-MNIST in one step: a shortcut model (Frans et al. 2025) from a trained model on.

    python train.py configs/fashion_mnist.py                       # the teacher, runs/fashion_mnist
    python train.py configs/fashion_shortcut.py --teacher runs/fashion_mnist
    python sample.py runs/fashion_shortcut --steps 1

docs/few_step.md has the figures.
"""

from fashion_mnist import fashion_model, fashion_network

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=1200, batch_size=32, lr=5e-4, ema_decay=0.99),
    unet=recipe.defaults(recipe.unet, channels=48, attention_levels=(1,)),
    taught=recipe.defaults(distill.teaching, teacher="runs/fashion_mnist"),
)
def get_config(
    train, unet, taught, smallest_steps: int = 64, data_dir: str | None = None
) -> Experiment:
    """The experiment.

    Args:
      smallest_steps: number of the shortest steps, a power of two.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    base = fashion_model(module := fashion_network(unet))
    student = distill.student(base, module, predict_v, (distill.UNTIL,), distill.JUMPS)
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.shortcut(
        student.network, base.schedule, predict_v, weighting.snr_plus_one, smallest_steps
    )
    source = lambda: data.tfds("fashion_mnist", "train", data_dir)  # noqa: E731
    return distill.experiment(student, loss, source, train._asdict(), teacher)
