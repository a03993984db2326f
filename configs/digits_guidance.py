"""Digits at half the cost of guidance: guidance distillation (Meng et al. 2023).

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_guidance.py --teacher runs/digits
    python sample.py runs/digits_guidance --steps 50 --guidance-scale 1.25

The scale of guidance is an input of the student. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=300, lr=1e-3, ema_decay=0.99),
    unet=recipe.unet,
    taught=distill.teaching,
)
def get_config(train, unet, taught) -> Experiment:
    """The experiment."""
    base = digits_model(module := unet(num_classes=10))
    student = distill.student(base, module, predict_v, sampling=base.sampling)
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.guidance_distillation(
        student.network,
        base.schedule,
        predict_v,
        teacher.guided,
        weighting.uniform(base.schedule),
        weighting.snr_plus_one,
        taught.scales,
    )
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
