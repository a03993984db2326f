"""Digits in one step from data alone: improved consistency training (Song & Dhariwal 2024).

    python train.py configs/digits_ict.py
    python sample.py runs/digits_ict --steps 1

--teacher runs/digits begins at that run's weights instead. docs/few_step.md has the figures.
"""

from functools import partial

from digits import digits_model

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained

FLAGS = {
    "train": recipe.defaults(recipe.cosine_adam, steps=2000, lr=1e-3, ema_decay=0.998),
    "unet": recipe.unet,
    "taught": recipe.defaults(distill.teaching, teacher=None),
}
POINTS = partial(distill.doubling, last=160)


def from_data(loss_of, base, module, source, train, taught) -> Experiment:
    """A consistency function by a loss of (network, schedule, prediction, training steps)."""
    student = distill.student(base, module, predict_v, ())
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    loss = loss_of(student.network, base.schedule, predict_v, train.steps)
    return distill.experiment(student, loss, source, train._asdict(), teacher)


@recipe.flags(**FLAGS)
def get_config(train, unet, taught) -> Experiment:
    """The experiment."""
    base = digits_model(module := unet(num_classes=10))
    distance = distill.pseudo_huber(0.03)
    loss_of = partial(distill.consistency_training, distance=distance, points=POINTS)
    return from_data(loss_of, base, module, data.digits, train, taught)
