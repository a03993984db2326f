"""Digits in any number of steps: a solution map without a JVP (Luo et al. 2026, SoFlow).

    python train.py configs/digits_soflow.py
    python train.py configs/digits_soflow.py --teacher runs/digits     # its guided velocity
    python sample.py runs/digits_soflow --steps 1 --guidance-scale 1.25

The scale of guidance is an input of the network. docs/few_step.md has the figures.
"""

from functools import partial

from digits_mean_flow import FLAGS, flow_map

from diffjax import distill, recipe
from diffjax.experiment import Experiment


@recipe.flags(**FLAGS)
def get_config(train, unet, taught, dropped) -> Experiment:
    """The experiment."""
    loss_of = partial(distill.solution_flow, total=train.steps)
    return flow_map(loss_of, train, unet, taught, dropped)
