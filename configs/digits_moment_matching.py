"""Digits in a few stochastic steps: moment matching (Salimans et al. 2024).

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_moment_matching.py --teacher runs/digits
    python sample.py runs/digits_moment_matching --guidance-scale 1.25

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
def get_config(train, unet, taught, student_steps: int = 4) -> Experiment:
    """The experiment.

    Args:
      student_steps: steps of sampling that the student is trained for.
    """
    base = digits_model(module := unet(num_classes=10))
    usual = Sampling(samplers.ancestral, distill.even_times, student_steps)
    student = distill.with_critic(distill.student(base, module, predict_v, sampling=usual))
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.moment_matching(
        student.network,
        base.schedule,
        predict_v,
        teacher.denoiser,
        student_steps,
        weighting.truncated_snr,
    )
    loss = distill.at_drawn_scales(loss, taught.scales)
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
