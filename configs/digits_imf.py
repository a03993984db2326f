"""Digits in any number of steps: improved MeanFlow (Geng et al. 2025, iMF).

    python train.py configs/digits_imf.py
    python train.py configs/digits_imf.py --teacher runs/digits     # its guided velocity
    python sample.py runs/digits_imf --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the network. docs/few_step.md has the figures.
"""

from digits_mean_flow import FLAGS, flow_map

from diffjax import distill, recipe
from diffjax.experiment import Experiment


@recipe.flags(**FLAGS)
def get_config(train, unet, taught, dropped) -> Experiment:
    """The experiment."""
    return flow_map(distill.improved_mean_flow, train, unet, taught, dropped)
