"""Emoji by caption, in the latents of an autoencoder: latent diffusion from nothing.

    python train.py configs/emoji_autoencoder.py --workdir runs/emoji_kl
    python -m diffjax.latents.cache runs/emoji_kl
    python train.py configs/emoji_latent.py
    python sample.py runs/emoji_latent --prompt "a red apple" --num 16  # docs/train_your_own.md

Captions are read by a frozen MiniLM, or with --text FOLDER by CLIP or T5.
"""

from diffjax import data, losses, recipe, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.latents.cached import drawn
from diffjax.models.resnet import nearest_up, pool_down
from diffjax.parameterization import predict_v
from diffjax.run.latents import latents


@recipe.flags(
    train=recipe.defaults(recipe.cosine_muon, steps=6000),
    unet=recipe.defaults(recipe.unet, channels=48, attention_levels=(1,)),
    latents=latents,
    text=recipe.text_encoder,
    dropped=recipe.caption_dropout,
)
def get_config(train, unet, latents, text, dropped) -> Experiment:
    """The experiment."""
    schedule, caption = schedules.vp_cosine(), recipe.caption(text, ("vector",))
    module = unet(resample=(pool_down, nearest_up)).clone(vector=True)
    drawing = {"codec": latents.codec, "guide": classifier_free}
    drawing |= {"sampling": Sampling(guidance_scale=3.0)}
    model = recipe.gaussian_model(module, schedule, predict_v, latents.shape, (caption,), **drawing)
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), schedule, predict_v, weight, density)
    encoded, table = lambda: latents.source(data.emoji("train")), data.emoji_folder() / "text"
    source, drawn_caption = data.embedded(encoded, text, table, ("vector",))
    return Experiment(
        model=model._replace(frozen=latents.frozen),
        source=source,
        loss=lambda frozen: dropped(loss, caption),
        augment=(drawn, drawn_caption),
        resolved=latents.resolved,
        **train._asdict(),
    )
