"""Digits in one step: sCM (Lu & Song 2025) of a trained digits model, or from data alone.

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_scm.py --teacher runs/digits            # sCD
    python train.py configs/digits_scm.py                                  # sCT, without guidance
    python sample.py runs/digits_scm --steps 1

With a teacher the scale of guidance is an input. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import at_steps, predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=500, batch_size=32, lr=7e-4, ema_decay=0.99),
    unet=recipe.unet,
    taught=recipe.defaults(distill.teaching, teacher=None),
)
def get_config(train, unet, taught, tangent_warmup: int = 200, held: int = 100) -> Experiment:
    """The experiment.

    Args:
      tangent_warmup: steps in which the unstable part of the tangent comes in.
      held: steps before those, in which a teacher's network gets used to new times.
    """
    base = digits_model(module := unet(num_classes=10))
    predicts = at_steps(predict_v, 2)  # times of -1 to 1: a slope that a derivative can pass
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    student = distill.student(base, module, predicts, (distill.SCALE,) if teacher else ())
    loss = distill.scm(
        student.network,
        base.schedule,
        predicts,
        weighting.edm_lognormal(base.schedule, -0.4, 1.6),
        teacher and distill.velocity_of_teacher(base.schedule, teacher.denoiser),
        tangent_warmup,
        held=held,
    )
    loss = distill.at_drawn_scales(loss, taught.scales) if teacher else loss
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
