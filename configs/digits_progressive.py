"""Digits from 64 steps to one: progressive distillation (Salimans & Ho 2022) in one run.

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_progressive.py --teacher runs/digits
    python sample.py runs/digits_progressive --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the student. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe, samplers, weighting
from diffjax.experiment import Experiment, Sampling
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.staged_adam, lr=2e-3), unet=recipe.unet, taught=distill.teaching
)
def get_config(train, unet, taught, teacher_steps: int = 64, stage_steps: int = 150) -> Experiment:
    """The experiment.

    Args:
      teacher_steps: of the teacher, a power of two.
      stage_steps: training steps of each student: of 32 steps, 16, 8, 4, 2 and 1.
    """
    base = digits_model(module := unet(num_classes=10))
    usual = Sampling(samplers.ddim, distill.even_times, 1)
    student = distill.student(base, module, predict_v, sampling=usual)
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.progressive_stages(
        student.network,
        base.schedule,
        predict_v,
        teacher.denoiser,
        teacher_steps,
        stage_steps,
        weighting.snr_plus_one,
    )
    loss = distill.at_drawn_scales(loss, taught.scales)
    train = train(stage_steps, distill.stages_of(teacher_steps))
    given = student, loss, data.digits, train._asdict(), teacher
    return distill.with_past(distill.experiment(*given))
