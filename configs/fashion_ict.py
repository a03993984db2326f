"""Fashion-MNIST in one step: consistency training (Song & Dhariwal 2024) from a trained model on.

    python train.py configs/fashion_mnist.py                       # the teacher, runs/fashion_mnist
    python train.py configs/fashion_ict.py --teacher runs/fashion_mnist
    python sample.py runs/fashion_ict --steps 1

docs/few_step.md has the figures.
"""

from functools import partial

from fashion_mnist import fashion_model, fashion_network

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=1200, batch_size=32, lr=5e-4, ema_decay=0.99),
    unet=recipe.defaults(recipe.unet, channels=48, attention_levels=(1,)),
    taught=recipe.defaults(distill.teaching, teacher="runs/fashion_mnist"),
)
def get_config(train, unet, taught, data_dir: str | None = None) -> Experiment:
    """The experiment.

    Args:
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    base = fashion_model(module := fashion_network(unet))
    student = distill.student(base, module, predict_v, ())
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.consistency_training(
        student.network,
        base.schedule,
        predict_v,
        train.steps,
        distill.pseudo_huber(0.1),
        points=partial(distill.doubling, last=160),
    )
    source = lambda: data.tfds("fashion_mnist", "train", data_dir)  # noqa: E731
    return distill.experiment(student, loss, source, train._asdict(), teacher)
