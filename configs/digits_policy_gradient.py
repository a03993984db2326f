"""Digits fine-tuned by a reward without a derivative: DDPO (Black et al. 2024) as Flow-GRPO has it.

    python train.py                                            # where it begins, runs/digits
    python train.py configs/digits_policy_gradient.py
    python sample.py runs/digits_policy_gradient

The reward is that of configs/digits_draft.py. docs/few_step.md has the figures.
"""

from digits_draft import FLAGS, TRAIN, reward, rewarded

from diffjax import distill, recipe
from diffjax.experiment import Experiment

SMALL = recipe.defaults(TRAIN, batch_size=8)


@recipe.flags(**{**FLAGS, "train": SMALL})
def get_config(train, unet, taught, beta: float = 1e-3, group: int = 8) -> Experiment:
    """The experiment.

    Args:
      beta: price of the divergence from the teacher.
      group: samples that are drawn for each example of the batch.
    """
    loss_of = lambda *given: distill.policy_gradient(*given, reward, beta, group)  # noqa: E731
    return rewarded(loss_of, train, unet, taught)
