"""Emoji in 64x64 from the 16x16 ones of another run: the second stage of a cascade.

python train.py configs/emoji_pixels.py --workdir runs/emoji_16   # the first
python train.py configs/emoji_cascade.py
python sample.py runs/emoji_cascade --prompt "a red apple" --augmentation 0.1
"""

from diffjax import cascade, data, losses, media, recipe, samplers, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.models import Patched, SuperResolution, TwoTimes
from diffjax.models.resnet import nearest_up, pool_down
from diffjax.parameterization import predict_v
from diffjax.run.stages import drawn_by


@recipe.flags(
    train=recipe.defaults(recipe.cosine_muon, steps=3000, batch_size=8),
    unet=recipe.unet,
    text=recipe.text_encoder,
    dropped=recipe.caption_dropout,
    finish=recipe.thresholding,
)
def get_config(
    train, unet, text, dropped, finish, base: str = "runs/emoji_16", small: int = 16, patch: int = 2
) -> Experiment:
    """The experiment.

    Args:
      base: workdir of the first stage.
      small: side of its pictures in pixels.
      patch: side of the patches that the network sees as one pixel each.
    """
    emoji, drawn = data.embedded(data.emoji, text, data.emoji_folder() / "text", ("vector",))
    schedule, caption = schedules.vp_cosine(), recipe.caption(text, ("vector",))
    picture = drawn_by(base, (small, small, 3), schedule)
    wide = unet(out_channels=3 * patch**2, resample=(pool_down, nearest_up)).clone(vector=True)
    module = SuperResolution(TwoTimes(Patched(wide, patch), ("small_level",)))
    how = {"conditions": (caption, picture), "codec": media.small_first(), "guide": classifier_free}
    how |= {"finish": finish, "sampling": Sampling(samplers.ancestral, guidance_scale=1.5)}
    model = recipe.gaussian_model(module, schedule, predict_v, (64, 64, 3), **how)
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), schedule, predict_v, weight, density)
    loss = dropped(cascade.noised_condition(loss, schedule), caption)
    source = lambda: data.with_small(emoji(), small)  # noqa: E731
    return Experiment(model, source, lambda frozen: loss, augment=(drawn,), **train._asdict())
