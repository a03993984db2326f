"""Digits in any number of steps from data alone: shortcut models (Frans et al. 2025).

    python train.py configs/digits_shortcut.py
    python sample.py runs/digits_shortcut --steps 1

--teacher runs/digits begins at that run's weights instead. docs/few_step.md has the figures.
"""

from digits import digits_model
from digits_ict import FLAGS

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


def jumps(loss_of, base, module, source, train, taught) -> Experiment:
    """A flow map by a loss of (network, schedule, prediction)."""
    student = distill.student(base, module, predict_v, (distill.UNTIL,), distill.JUMPS)
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    loss = loss_of(student.network, base.schedule, predict_v)
    return distill.experiment(student, loss, source, train._asdict(), teacher)


def shortcut(smallest_steps: int):
    """The loss of a shortcut model."""
    return lambda *given: distill.shortcut(*given, weighting.snr_plus_one, smallest_steps)


@recipe.flags(**FLAGS)
def get_config(train, unet, taught, smallest_steps: int = 64) -> Experiment:
    """The experiment.

    Args:
      smallest_steps: number of the shortest steps, a power of two.
    """
    base = digits_model(module := unet(num_classes=10))
    return jumps(shortcut(smallest_steps), base, module, data.digits, train, taught)
