"""Digits in one step from data alone: inductive moment matching (Zhou et al. 2025).

    python train.py configs/digits_imm.py [--teacher runs/digits, which it begins at]
    python sample.py runs/digits_imm --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the network. docs/few_step.md has the figures.
"""

from digits import digits_model
from digits_ict import FLAGS
from digits_shortcut import jumps

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment


def moments(network, schedule, prediction, velocity):
    """The loss of IMM."""
    given = network, schedule, prediction, weighting.uniform(schedule), weighting.snr_plus_one
    return distill.inductive_moment_matching(*given, velocity=velocity)


@recipe.flags(**FLAGS)
def get_config(train, unet, taught, dropped) -> Experiment:
    """The experiment."""
    base = digits_model(module := unet(num_classes=10))
    return jumps(moments, base, module, data.digits, train, taught, dropped)
