"""Fashion-MNIST in one step: consistency distillation (Song et al. 2023) of a trained model.

    python train.py configs/fashion_mnist.py                       # the teacher, runs/fashion_mnist
    python train.py configs/fashion_consistency.py --teacher runs/fashion_mnist
    python sample.py runs/fashion_consistency --steps 1

The scale of guidance is an input of the student. docs/few_step.md has the figures.
"""

from fashion_mnist import fashion_model, fashion_network

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=800, batch_size=32, lr=5e-4, ema_decay=0.99),
    unet=recipe.defaults(recipe.unet, channels=48, attention_levels=(1,)),
    taught=recipe.defaults(distill.teaching, teacher="runs/fashion_mnist"),
)
def get_config(
    train, unet, taught, solver_steps: int = 16, data_dir: str | None = None
) -> Experiment:
    """The experiment.

    Args:
      solver_steps: Heun steps of the teacher between noise and data, even in time.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    base = fashion_model(module := fashion_network(unet))
    student = distill.student(base, module, predict_v)
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.consistency_distillation(
        student.network,
        base.schedule,
        predict_v,
        teacher.denoiser,
        distill.even_times(base.schedule, solver_steps),
        weighting=distill.by_network_output(base.schedule, predict_v),
    )
    loss = distill.at_drawn_scales(loss, taught.scales)
    source = lambda: data.tfds("fashion_mnist", "train", data_dir)  # noqa: E731
    return distill.experiment(student, loss, source, train._asdict(), teacher)
