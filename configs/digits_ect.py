"""Digits in one step from data: easy consistency tuning (Geng et al. 2024).

    python train.py configs/digits_ect.py
    python sample.py runs/digits_ect --steps 1

--teacher runs/digits begins at that run's weights instead. docs/few_step.md has the figures.
"""

from functools import partial

from digits import digits_model
from digits_ict import FLAGS, from_data

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment


@recipe.flags(**FLAGS)
def get_config(train, unet, taught) -> Experiment:
    """The experiment."""
    base = digits_model(module := unet(num_classes=10))
    loss_of = partial(distill.easy_consistency, distance=distill.pseudo_huber(0.03))
    return from_data(loss_of, base, module, data.digits, train, taught)
