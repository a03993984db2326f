"""Digits in one step: consistency distillation (Song et al. 2023) of a trained digits model.

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_consistency.py --teacher runs/digits
    python sample.py runs/digits_consistency --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the student. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


def consistency(base, module, source, train, taught, solver_steps) -> Experiment:
    """Of a base model with its network, on a source of data."""
    student = distill.student(base, module, predict_v)
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    times = distill.even_times(base.schedule, solver_steps)
    weight = distill.by_network_output(base.schedule, predict_v)
    given = (student.network, base.schedule, predict_v, teacher.denoiser, times)
    loss = distill.consistency_distillation(*given, weighting=weight)
    loss = distill.at_drawn_scales(loss, taught.scales)
    return distill.experiment(student, loss, source, train._asdict(), teacher)


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=500, lr=1e-3, ema_decay=0.99),
    unet=recipe.unet,
    taught=distill.teaching,
)
def get_config(train, unet, taught, solver_steps: int = 16) -> Experiment:
    """The experiment.

    Args:
      solver_steps: Heun steps of the teacher between noise and data, even in time.
    """
    base = digits_model(module := unet(num_classes=10))
    return consistency(base, module, data.digits, train, taught, solver_steps)
