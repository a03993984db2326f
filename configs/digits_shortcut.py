"""Digits in any number of steps from data alone: shortcut models (Frans et al. 2025).

    python train.py configs/digits_shortcut.py
    python sample.py runs/digits_shortcut --steps 1

--teacher runs/digits begins at that run's weights instead. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=2000, lr=1e-3, ema_decay=0.998),
    unet=recipe.unet,
    taught=recipe.defaults(distill.teaching, teacher=None),
)
def get_config(train, unet, taught, smallest_steps: int = 64) -> Experiment:
    """The experiment.

    Args:
      smallest_steps: number of the shortest steps, a power of two.
    """
    base = digits_model(module := unet(num_classes=10))
    student = distill.student(base, module, predict_v, (distill.UNTIL,), distill.JUMPS)
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.shortcut(
        student.network, base.schedule, predict_v, weighting.snr_plus_one, smallest_steps
    )
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
