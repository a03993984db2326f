"""Digits in any number of steps from data alone: shortcut models (Frans et al. 2025).

    python train.py configs/digits_shortcut.py [--teacher runs/digits, which it begins at]
    python sample.py runs/digits_shortcut --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the network. docs/few_step.md has the figures.
"""

from functools import partial

from digits import digits_model
from digits_ict import FLAGS

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


def jumps(loss_of, base, module, source, train, taught, dropped) -> Experiment:
    """A flow map by a loss of (network, schedule, prediction)."""
    numbers = (distill.UNTIL, distill.SCALE)
    student = distill.student(base, module, predict_v, numbers, distill.JUMPS)
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    velocity = distill.guided_data_for(student.model, base, teacher)
    loss = loss_of(student.network, base.schedule, predict_v, velocity=velocity)
    loss = distill.at_drawn_scales(distill.with_itself(loss), taught.scales)
    loss = loss if teacher else dropped(loss, base.conditions[0])
    return distill.experiment(student, loss, source, train._asdict(), teacher)


def shortcut(smallest_steps: int):
    """The loss of a shortcut model."""
    return partial(distill.shortcut, weighting=weighting.snr_plus_one, steps=smallest_steps)


@recipe.flags(**FLAGS)
def get_config(train, unet, taught, dropped, smallest_steps: int = 64) -> Experiment:
    """The experiment.

    Args:
      smallest_steps: number of the shortest steps, a power of two.
    """
    base = digits_model(module := unet(num_classes=10))
    return jumps(shortcut(smallest_steps), base, module, data.digits, train, taught, dropped)
