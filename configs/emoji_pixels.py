"""Emoji by caption, 64x64, without an autoencoder: a U-Net on 4x4 squares of pixels.

    python -m diffjax.data.prepare emoji
    python train.py configs/emoji_pixels.py
    python sample.py runs/emoji_pixels --prompt "a red apple" --num 16

What configs/emoji_latent.py is compared with. Captions are read as there.
"""

from diffjax import data, guidance, losses, recipe, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.media import pixels
from diffjax.models.patched import Patched
from diffjax.parameterization import predict_v

PARTS = {"text": recipe.text_encoder, "unet": recipe.text_unet, "dropped": recipe.caption_dropout}
SAMPLING = Sampling(steps=50, guidance_scale=3.0)


@recipe.flags(train=recipe.defaults(recipe.cosine_muon, steps=3000), **PARTS)
def get_config(
    train, text, unet, dropped, size: int = 64, patch: int = 4, data_dir: str | None = None
) -> Experiment:
    """The experiment.

    Args:
      size: side of the pictures.
      patch: side of the square of pixels that the U-Net sees as one.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    schedule, caption, module = schedules.vp_cosine(), recipe.caption(text), Patched(unet, patch)
    given = ((caption,), pixels, classifier_free, guidance.static_clip)
    shape = (size, size, 3)
    model = recipe.gaussian_model(module, schedule, predict_v, shape, *given, sampling=SAMPLING)
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), schedule, predict_v, weight, density)
    emoji, folder = lambda: data.emoji("train", size, data_dir), data.emoji_folder(data_dir)
    source, drawn = data.embedded(emoji, text, folder / "text")
    return Experiment(
        model=model,
        source=source,
        loss=lambda frozen: dropped(loss, caption),
        augment=(drawn,),
        **train._asdict(),
    )
