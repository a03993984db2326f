"""Emoji by caption on 4x4 squares of pixels, all else as in configs/emoji_latent.py.

    python train.py benchmarks/emoji_patches.py

What the latents of an autoencoder are compared with in docs/train_your_own.md.
"""

from diffjax import data, guidance, losses, recipe, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.media import pixels
from diffjax.models.patched import Patched
from diffjax.models.resnet import nearest_up, pool_down
from diffjax.parameterization import predict_v


@recipe.flags(
    train=recipe.defaults(recipe.cosine_muon, steps=6000),
    unet=recipe.defaults(recipe.unet, channels=48, attention_levels=(1,)),
    text=recipe.text_encoder,
    dropped=recipe.caption_dropout,
)
def get_config(train, unet, text, dropped) -> Experiment:
    """The experiment."""
    schedule, caption = schedules.vp_cosine(), recipe.caption(text, ("vector",))
    module = Patched(unet(resample=(pool_down, nearest_up), out_channels=48).clone(vector=True), 4)
    given = ((64, 64, 3), (caption,), pixels, classifier_free, guidance.static_clip)
    sampling = Sampling(guidance_scale=3.0)
    model = recipe.gaussian_model(module, schedule, predict_v, *given, sampling=sampling)
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), schedule, predict_v, weight, density)
    table = data.emoji_folder() / "text"
    source, drawn = data.embedded(lambda: data.emoji("train"), text, table, ("vector",))
    return Experiment(
        model=model,
        source=source,
        loss=lambda frozen: dropped(loss, caption),
        augment=(drawn,),
        **train._asdict(),
    )
