"""Digits in one step: distribution matching (Yin et al. 2024, DMD2) of a trained digits model.

    python train.py                                            # the teacher, runs/digits
    python train.py configs/digits_dmd2.py --teacher runs/digits
    python sample.py runs/digits_dmd2 --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the student. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, models, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=600, lr=1e-3, ema_decay=0.99),
    unet=recipe.unet,
    taught=distill.teaching,
)
def get_config(train, unet, taught, every: int = 5, head: float = 3e-3) -> Experiment:
    """The experiment.

    Args:
      every: steps of the critic for each of the generator.
      head: weight of the adversarial head in the generator's loss; 0 has none.
    """
    base = digits_model(module := unet(num_classes=10))
    student = distill.with_critic(distill.student(base, module, predict_v))
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    given = student.network, base.schedule, predict_v, teacher.denoiser
    times, rival = weighting.uniform(base.schedule), distill.no_adversary
    if head:
        judge = models.PatchDiscriminator(64, layers=0)
        student, logits = distill.with_head(student, "middle_1", judge)
        rival = distill.adversarial_head(logits, base.schedule, predict_v, times, (head, 1e-2))
    loss = distill.distribution_matching(*given, times, weighting.snr_plus_one, every, rival)
    loss = distill.at_drawn_scales(loss, taught.scales)
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
