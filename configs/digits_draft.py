"""Digits fine-tuned by a reward through the sampler: DRaFT-K (Clark et al. 2024), AlignProp.

    python train.py                                            # where it begins, runs/digits
    python train.py configs/digits_draft.py
    python sample.py runs/digits_draft

The reward is for being one's own mirror image; write another function of x0 in its place.
"""

import jax.numpy as jnp
from digits import digits_model

from diffjax import data, distill, recipe
from diffjax.experiment import Experiment
from diffjax.parameterization import predict_v
from diffjax.run.weights import trained

TRAIN = recipe.defaults(recipe.cosine_adam, steps=150, lr=2e-4, ema_decay=0.95)
FLAGS = {"train": TRAIN, "unet": recipe.unet, "taught": distill.teaching}


def reward(x0):
    """Minus the mean difference from the mirror image, (B, H, W, C) -> (B,)."""
    return -jnp.mean(jnp.abs(x0 - x0[:, :, ::-1]), axis=(1, 2, 3))


def rewarded(loss_of, train, unet, taught) -> Experiment:
    """A run of the teacher's network by a loss of (denoiser, reference, schedule, times)."""
    base = digits_model(module := unet(num_classes=10))
    student = distill.student(base, module, predict_v, (), base.sampling)
    teacher = distill.frozen_teacher(base, taught.teacher, trained)
    ts = distill.even_times(base.schedule, 16)
    loss = loss_of(base.denoiser, teacher.unguided, base.schedule, ts)
    return distill.experiment(student, loss, data.digits, train._asdict(), teacher)


@recipe.flags(**FLAGS)
def get_config(train, unet, taught, beta: float = 0.02, last: int = 3) -> Experiment:
    """The experiment.

    Args:
      beta: price of the divergence from the teacher; with less the reward is all.
      last: steps of the sampler that the reward is differentiated through.
    """
    return rewarded(lambda *given: distill.draft(*given, reward, beta, last), train, unet, taught)
