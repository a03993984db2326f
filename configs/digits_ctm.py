"""Digits by jumps from any time to any other: CTM (Kim et al. 2024) of a trained digits model.

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_ctm.py --teacher runs/digits
    python sample.py runs/digits_ctm --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the student. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, grids, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=600, lr=3e-4, ema_decay=0.99),
    unet=recipe.unet,
    taught=distill.teaching,
)
def get_config(train, unet, taught, solver_steps: int = 10) -> Experiment:
    """The experiment.

    Args:
      solver_steps: steps of the teacher's solver between noise and data.
    """
    base = digits_model(module := unet(num_classes=10))
    student = distill.student(
        base, module, predict_v, (distill.UNTIL, distill.SCALE), sampling=distill.JUMPS
    )
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.consistency_trajectory(
        student.network,
        base.schedule,
        predict_v,
        teacher.denoiser,
        grids.karras(base.schedule, solver_steps),
        weighting.snr_plus_one,
        denoising=0.0,  # of data without guidance, while the jumps are those of guidance
        distance=distill.pseudo_huber(0.03),
    )
    loss = distill.at_drawn_scales(loss, taught.scales)
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
