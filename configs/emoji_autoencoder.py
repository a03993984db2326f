"""Emoji, 64x64, to 16x16 latents of 4 channels and back: the first stage of latent diffusion.

    python -m diffjax.data.prepare emoji
    python train.py configs/emoji_autoencoder.py --workdir runs/emoji_kl
    python train.py configs/emoji_autoencoder.py --kind vq --workdir runs/emoji_vq

Its samples are reconstructions. On an accelerator give it more: --channels 128 256 --blocks 2
--patch 1 --adversarial 0.5 --adversarial-start 2000 --steps 50000. docs/train_your_own.md goes on.
"""

from diffjax import data, recipe
from diffjax.experiment import Experiment


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=2000, batch_size=16),
    autoencoder=recipe.autoencoder,
)
def get_config(train, autoencoder, size: int = 64, data_dir: str | None = None) -> Experiment:
    """The experiment.

    Args:
      size: side of the pictures.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    shape = (size, size, 3)
    parts = autoencoder(shape)
    return Experiment(
        model=recipe.autoencoder_model(parts, shape),
        source=lambda: data.emoji("train", size, data_dir),
        loss=lambda frozen: parts.loss,
        augment=(data.flip,),
        context=parts.context,
        parts={"autoencoder": parts.autoencoder},
        **train._asdict(),
    )
