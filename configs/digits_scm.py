"""Digits in one step: sCM (Lu & Song 2025) of a trained digits model, or from data alone.

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_scm.py --teacher runs/digits            # sCD
    python train.py configs/digits_scm.py                                  # sCT, from data
    python sample.py runs/digits_scm --steps 1

With a teacher the scale of guidance is an input. docs/few_step.md has the figures.
"""

from digits import digits_model
from digits_ict import FLAGS

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import at_steps, predict_v
from diffjax.run.weights import trained

TRAIN = recipe.defaults(recipe.cosine_adam, steps=500, batch_size=32, lr=7e-4, ema_decay=0.99)


@recipe.flags(**{**FLAGS, "train": TRAIN})
def get_config(train, unet, taught, dropped, tangent_warmup: int = 200) -> Experiment:
    """The experiment.

    Args:
      tangent_warmup: steps in which the unstable part of the tangent comes in.
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
        held=100,  # steps before those, in which a teacher's network gets used to new times
    )
    label = base.conditions[0]
    loss = distill.at_drawn_scales(loss, taught.scales) if teacher else dropped(loss, label)
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
