"""Digits in one step from data alone: inductive moment matching (Zhou et al. 2025).

    python train.py configs/digits_imm.py
    python sample.py runs/digits_imm --steps 1

--teacher runs/digits begins at that run's weights instead. docs/few_step.md has the figures.
"""

from digits import digits_model
from digits_ict import FLAGS
from digits_shortcut import jumps

from diffjax import data, distill, recipe, weighting
from diffjax.experiment import Experiment


def moments(network, schedule, prediction):
    """The loss of IMM."""
    given, density = (network, schedule, prediction), weighting.uniform(schedule)
    return distill.inductive_moment_matching(*given, density, weighting.snr_plus_one)


@recipe.flags(**FLAGS)
def get_config(train, unet, taught) -> Experiment:
    """The experiment."""
    base = digits_model(module := unet(num_classes=10))
    return jumps(moments, base, module, data.digits, train, taught)
