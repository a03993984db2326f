"""Digits in one step from data: easy consistency tuning (Geng et al. 2024).

    python train.py configs/digits_ect.py [--teacher runs/digits, which it begins at]
    python sample.py runs/digits_ect --steps 1 --guidance-scale 1.25

With a teacher the scale of guidance is an input. docs/few_step.md has the figures.
"""

from functools import partial

from digits import digits_model
from digits_ict import FLAGS, from_data

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment


@recipe.flags(**FLAGS)
def get_config(train, unet, taught, dropped) -> Experiment:
    """The experiment."""
    base = digits_model(module := unet(num_classes=10))
    loss_of = partial(distill.easy_consistency, distance=distill.pseudo_huber(0.03))
    return from_data(loss_of, base, module, data.digits, train, taught, dropped)
