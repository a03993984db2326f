"""Digits in one step: latent consistency distillation (Luo et al. 2023), here of pixels.

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_lcm.py --teacher runs/digits
    python sample.py runs/digits_lcm --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the student. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=500, lr=1e-3, ema_decay=0.99),
    unet=recipe.unet,
    taught=distill.teaching,
)
def get_config(train, unet, taught, solver_steps: int = 10) -> Experiment:
    """The experiment.

    Args:
      solver_steps: steps of the teacher's solver between noise and data, a divisor of 1,000.
    """
    base = digits_model(module := unet(num_classes=10))
    predicts = distill.boundary(predict_v)
    student = distill.student(base, module, predicts)
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.latent_consistency(
        student.network,
        base.schedule,
        predicts,
        teacher.guided,
        steps=solver_steps,
        scales=taught.scales,
        distance=distill.elementwise_huber(0.03),
        weighting=distill.by_network_output(base.schedule, predicts),
    )
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
