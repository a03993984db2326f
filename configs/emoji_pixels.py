"""Emoji by caption in 16x16 pixels, the first stage of a cascade.

    python -m diffjax.data.prepare emoji
    python train.py configs/emoji_pixels.py --workdir runs/emoji_16
    python sample.py runs/emoji_16 --prompt "a red apple"

configs/emoji_pixels_64.py is one stage of 64x64. --text is minilm, or a folder of CLIP or T5.
"""

from diffjax import data, losses, recipe, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.models import Patched
from diffjax.models.resnet import nearest_up, pool_down
from diffjax.parameterization import predict_v

FLAGS = {"text": recipe.text_encoder, "dropped": recipe.caption_dropout}
FLAGS |= {"finish": recipe.thresholding}


def by_caption(predicts, weight, sampling, size, patch, train, unet, text, dropped, finish):
    """A network that predicts pixels in squares by a caption's vector, its errors weighted."""
    make = lambda: data.emoji("train", size)  # noqa: E731
    source, drawn = data.embedded(make, text, data.emoji_folder() / "text", ("vector",))
    schedule, caption = schedules.vp_cosine(), recipe.caption(text, ("vector",))
    wide = unet(out_channels=3 * patch**2, resample=(pool_down, nearest_up)).clone(vector=True)
    module, how = Patched(wide, patch), {"conditions": (caption,), "guide": classifier_free}
    how |= {"finish": finish, "sampling": sampling}
    model = recipe.gaussian_model(module, schedule, predicts, (size, size, 3), **how)
    given = recipe.network(module), schedule, predicts, weight, weighting.stratified(schedule)
    loss = dropped(losses.denoising_loss(*given), caption)
    return Experiment(model, source, lambda frozen: loss, augment=(drawn,), **train._asdict())


@recipe.flags(
    train=recipe.defaults(recipe.cosine_muon, steps=3000),
    unet=recipe.defaults(recipe.unet, channels=48, attention_levels=(0, 1)),
    **FLAGS,
)
def get_config(train, unet, text, dropped, finish) -> Experiment:
    """The experiment, on squares of 2x2 pixels."""
    sampling = Sampling(guidance_scale=2.0)
    given = sampling, 16, 2, train, unet, text, dropped, finish
    return by_caption(predict_v, weighting.snr_plus_one, *given)
