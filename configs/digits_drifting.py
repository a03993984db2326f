"""Digits in one step: a drifting model (Deng et al. 2026), which needs no teacher.

    python train.py configs/digits_progressive.py --teacher runs/digits
    python train.py configs/digits_drifting.py --init-from runs/digits_progressive
    python sample.py runs/digits_drifting --steps 1 --guidance-scale 1.25

Two minutes on two cores from a student of progressive distillation. --teacher runs/digits begins
at the teacher's weights instead. The scale of guidance is an input. docs/few_step.md has figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=200, batch_size=256, lr=5e-4, ema_decay=0.99),
    unet=recipe.unet,
    taught=recipe.defaults(distill.teaching, teacher=None),
)
def get_config(
    train, unet, taught, temperatures: tuple[float, ...] = (0.02, 0.05, 0.2)
) -> Experiment:
    """The experiment.

    Args:
      temperatures: of the kernel, in units of the mean distance of two digits.
    """
    base = digits_model(module := unet(num_classes=10))
    student = distill.student(base, module, predict_v)
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.drifting(
        student.network, base.schedule, predict_v, temperatures, alike=distill.same_label
    )
    loss = distill.at_one_scale(loss, taught.scales)
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
