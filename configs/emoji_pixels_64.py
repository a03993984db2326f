"""Emoji by caption in 64x64 pixels, in one stage.

    python -m diffjax.data.prepare emoji
    python train.py configs/emoji_pixels_64.py
    python sample.py runs/emoji_pixels_64 --prompt "a red apple"

A square of 4x4 pixels has as many numbers as the network has channels. So it predicts x0, which
is smooth, and not v, which has all the noise of a square in it (Li & He 2025). 25 minutes on a
core; docs/train_your_own.md has the pictures.
"""

import jax.numpy as jnp
from emoji_pixels import FLAGS, by_caption

from diffjax import recipe, samplers, weighting
from diffjax.experiment import Experiment, Sampling
from diffjax.parameterization import predict_x0


def capped(logsnr):
    """min(SNR + 1, 25): the squared error of v, but for the last noise."""
    return jnp.minimum(weighting.snr_plus_one(logsnr), 25)


@recipe.flags(
    train=recipe.defaults(recipe.cosine_muon, steps=2500),
    unet=recipe.defaults(recipe.unet, channels=48, attention_levels=(1,)),
    **FLAGS,
)
def get_config(train, unet, text, dropped, finish) -> Experiment:
    """The experiment, on squares of 4x4 pixels."""
    sampling = Sampling(samplers.dpmpp_2m_sde, steps=50, guidance_scale=2.0)
    given = sampling, 64, 4, train, unet, text, dropped, finish
    return by_caption(predict_x0, capped, *given)
