"""Digits in one step from data: easy consistency tuning (Geng et al. 2024).

    python train.py configs/digits_ect.py
    python sample.py runs/digits_ect --steps 1

--teacher runs/digits begins at that run's weights instead. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=2000, lr=1e-3, ema_decay=0.998),
    unet=recipe.unet,
    taught=recipe.defaults(distill.teaching, teacher=None),
)
def get_config(train, unet, taught) -> Experiment:
    """The experiment."""
    base = digits_model(module := unet(num_classes=10))
    student = distill.student(base, module, predict_v, ())
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.easy_consistency(
        student.network,
        base.schedule,
        predict_v,
        train.steps,
        distance=distill.pseudo_huber(0.03),
    )
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
