"""Digits in one step from data alone: improved consistency training (Song & Dhariwal 2024).

    python train.py configs/digits_ict.py [--teacher runs/digits, which it begins at]
    python sample.py runs/digits_ict --steps 1 --guidance-scale 1.25

With a teacher the scale of guidance is an input. docs/few_step.md has the figures.
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
    "dropped": recipe.label_dropout,
}
POINTS = partial(distill.doubling, last=160)
LOSS = partial(distill.consistency_training, distance=distill.pseudo_huber(0.03), points=POINTS)


def from_data(loss_of, base, module, source, train, taught, dropped) -> Experiment:
    """A consistency function by a loss of (network, schedule, prediction, steps)."""
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    student = distill.student(base, module, predict_v, (distill.SCALE,) if teacher else ())
    loss_of = partial(loss_of, student.network, base.schedule, predict_v, train.steps)
    if teacher:
        velocity = distill.guided_data_for(student.model, base, teacher)
        loss = distill.at_drawn_scales(loss_of(velocity=velocity), taught.scales)
    else:
        loss = dropped(loss_of(), base.conditions[0])
    return distill.experiment(student, loss, source, train._asdict(), teacher)


@recipe.flags(**FLAGS)
def get_config(train, unet, taught, dropped) -> Experiment:
    """The experiment."""
    base = digits_model(module := unet(num_classes=10))
    return from_data(LOSS, base, module, data.digits, train, taught, dropped)
