"""Digits along straighter paths: reflow (Liu et al. 2023) of a trained digits model.

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_reflow.py --teacher runs/digits
    python sample.py runs/digits_reflow --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the student. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe, samplers, weighting
from diffjax.experiment import Experiment, Sampling
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=600, lr=1e-3, ema_decay=0.99),
    unet=recipe.unet,
    taught=distill.teaching,
)
def get_config(train, unet, taught, solver_steps: int = 8) -> Experiment:
    """The experiment.

    Args:
      solver_steps: steps with which the teacher makes pairs, at each training step anew.
    """
    base = digits_model(module := unet(num_classes=10))
    student = distill.student(base, module, predict_v, sampling=Sampling(steps=1))
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    density, weight = weighting.uniform(base.schedule), weighting.snr_plus_one
    loss = distill.reflow(student.network, base.schedule, predict_v, density, weight)
    solver = samplers.dpmpp_2m(base.schedule), distill.even_times(base.schedule, solver_steps)
    loss = distill.on_pairs(loss, base.schedule, teacher.denoiser, *solver)
    loss = distill.at_drawn_scales(loss, taught.scales)
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
