"""Digits in one step from data alone: inductive moment matching (Zhou et al. 2025).

    python train.py configs/digits_imm.py
    python sample.py runs/digits_imm --steps 1

--teacher runs/digits begins at that run's weights instead. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=2000, lr=1e-3, ema_decay=0.998),
    unet=recipe.unet,
    taught=recipe.defaults(distill.teaching, teacher=None),
)
def get_config(train, unet, taught) -> Experiment:
    """The experiment."""
    base = digits_model(module := unet(num_classes=10))
    student = distill.student(base, module, predict_v, (distill.UNTIL,), distill.JUMPS)
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    loss = distill.inductive_moment_matching(
        student.network,
        base.schedule,
        predict_v,
        weighting.uniform(base.schedule),
        weighting.snr_plus_one,
    )
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)
