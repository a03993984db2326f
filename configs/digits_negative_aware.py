"""Digits fine-tuned by a reward on the forward process: DiffusionNFT (Zheng et al. 2026).

    python train.py                                            # where it begins, runs/digits
    python train.py configs/digits_negative_aware.py
    python sample.py runs/digits_negative_aware

The reward is that of configs/digits_draft.py. docs/few_step.md has the figures.
"""

from digits_draft import FLAGS, reward, rewarded
from digits_policy_gradient import SMALL

from diffjax import distill, recipe, samplers, weighting
from diffjax.experiment import Experiment


def by_denoising(denoiser, reference, schedule, ts):
    """The loss, whose samples are DDIM's."""
    given = denoiser, samplers.ddim(schedule), schedule, ts, reward
    return distill.negative_aware(*given, weighting.uniform(schedule), weighting.snr_plus_one)


@recipe.flags(**{**FLAGS, "train": SMALL})
def get_config(train, unet, taught) -> Experiment:
    """The experiment."""
    return distill.with_past(rewarded(by_denoising, train, unet, taught))
