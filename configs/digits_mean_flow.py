"""Digits in any number of steps: MeanFlow (Geng et al. 2025), from data or a trained model.

    python train.py configs/digits_mean_flow.py
    python train.py configs/digits_mean_flow.py --teacher runs/digits     # its guided velocity
    python sample.py runs/digits_mean_flow --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the network. docs/few_step.md has the figures.
"""

from digits import digits_model

from diffjax import data, distill, recipe, schedules, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import at_steps, predict_v
from diffjax.run.weights import trained

FLAGS = {
    "train": recipe.defaults(recipe.cosine_adam, steps=2000, lr=1e-3, ema_decay=0.998),
    "unet": recipe.unet,
    "taught": recipe.defaults(distill.teaching, teacher=None),
    "dropped": recipe.label_dropout,
}


def flow_map(loss_of, train, unet, taught, dropped) -> Experiment:
    """A flow map of the straight line by a loss of (network, schedule, prediction, density)."""
    base, line = digits_model(module := unet(num_classes=10)), schedules.rectified_flow()
    predicts = distill.predicted_on(at_steps(predict_v, 50), base.schedule)
    on_line, numbers = base._replace(schedule=line), (distill.UNTIL, distill.SCALE)
    student = distill.student(on_line, module, predicts, numbers, distill.JUMPS)
    teacher = taught.teacher and distill.frozen_teacher(base, taught.teacher, trained)
    velocity = distill.velocity_for(student.model, base, teacher)
    given = (student.network, line, predicts, weighting.logit_normal(line, -0.4, 1.0))
    loss = distill.with_itself(loss_of(*given, velocity=velocity))
    loss = distill.at_drawn_scales(loss, taught.scales)
    loss = loss if teacher else dropped(loss, base.conditions[0])
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)


@recipe.flags(**FLAGS)
def get_config(train, unet, taught, dropped) -> Experiment:
    """The experiment."""
    return flow_map(distill.mean_flow, train, unet, taught, dropped)
