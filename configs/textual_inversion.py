"""A new word for what a few pictures show, for a run by caption: textual inversion.

    python train.py configs/textual_inversion.py --base runs/emoji_16 --pictures pictures \\
        --first face
    python sample.py runs/textual_inversion --prompt "a * with a hat"

Gal et al. 2023. The input embedding of `*` is trained alone, 384 numbers of MiniLM; the network
and the rest of the encoder are frozen. It can show only what the base can draw.
"""

from diffjax import recipe
from diffjax.experiment import Experiment
from diffjax.run.textual_inversion import with_new_word

PROMPTS = ("*", "a *", "an emoji of *", "a picture of *")


@recipe.flags(
    train=recipe.defaults(
        recipe.cosine_adam, steps=300, batch_size=16, lr=5e-3, warmup=20, ema_decay=0.98
    )
)
def get_config(
    train,
    base: str = "runs/emoji_16",
    pictures: str = "pictures",
    first: str = "face",
    prompts: tuple[str, ...] = PROMPTS,
) -> Experiment:
    """The experiment.

    Args:
      base: workdir of a run by caption.
      pictures: folder of the subject's pictures.
      first: word that `*` begins as.
      prompts: texts of the pictures, with `*`.
    """
    return with_new_word(base, train, pictures, prompts, first)
