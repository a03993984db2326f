"""Parts that experiments share: a Gaussian model, optimizers, networks, flags by parts.

A config's `get_config` is put together from functions whose keywords are flags:

    @flags(train=defaults(cosine_adam, steps=1600, lr=2e-3), unet=defaults(unet, channels=32))
    def get_config(train, unet, flip: bool = False) -> Experiment: ...

Every keyword of the parts is a keyword of `get_config` and so a flag of train.py, documented
where it is defined.
"""

from diffjax.models import network
from diffjax.recipe.autoencoder import autoencoder, autoencoder_model
from diffjax.recipe.control import controlnet_model, on_whole
from diffjax.recipe.flags import defaults, flags
from diffjax.recipe.lora import LowRank, lora_model, low_rank
from diffjax.recipe.model import gaussian_model, label_dropout, thresholding
from diffjax.recipe.networks import dit, plain_unet, sized_network, song_unet, unet
from diffjax.recipe.text import TextEncoder, caption, caption_dropout, text_encoder
from diffjax.recipe.training import Training, cosine_adam, cosine_muon, staged_adam, warmup_adam

__all__ = [
    "LowRank",
    "TextEncoder",
    "Training",
    "autoencoder",
    "autoencoder_model",
    "caption",
    "caption_dropout",
    "controlnet_model",
    "cosine_adam",
    "cosine_muon",
    "defaults",
    "dit",
    "flags",
    "gaussian_model",
    "label_dropout",
    "lora_model",
    "low_rank",
    "network",
    "on_whole",
    "plain_unet",
    "sized_network",
    "song_unet",
    "staged_adam",
    "text_encoder",
    "thresholding",
    "unet",
    "warmup_adam",
]
