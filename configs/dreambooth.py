"""One subject from a few pictures, as a LoRA of a run by caption: DreamBooth.

    python sample.py runs/emoji_16 --prompt "a face" --num 64 --out prior.npz
    python train.py configs/dreambooth.py --base runs/emoji_16 --pictures pictures \\
        --prompt "a sks face" --prior prior.npz --prior-prompt "a face"
    python sample.py runs/dreambooth --prompt "a sks face"

Ruiz et al. 2023. The prior is what the base draws of the class, so that the class is not lost.
"""

from diffjax import recipe
from diffjax.experiment import Experiment
from diffjax.run.dreambooth import subject
from diffjax.run.fine_tuning import with_lora
from diffjax.run.workdir import load_experiment


@recipe.flags(
    train=recipe.defaults(
        recipe.cosine_adam, steps=200, batch_size=16, lr=3e-3, warmup=20, ema_decay=0.98
    ),
    low_rank=recipe.defaults(recipe.low_rank, layers="all", rank=8),
)
def get_config(
    train,
    low_rank,
    base: str = "runs/emoji_16",
    pictures: str = "pictures",
    prompt: str = "a sks face",
    prior: str | None = None,
    prior_prompt: str = "a face",
    prior_weight: float = 1.0,
) -> Experiment:
    """The experiment.

    Args:
      base: workdir of the network that is fine-tuned.
      pictures: folder of the subject's pictures.
      prompt: that names the subject, by a rare word.
      prior: npz of what the base draws for --prior-prompt.
      prior_prompt: of the subject's class.
      prior_weight: of the loss of the prior.
    """
    given = (load_experiment(base).model, pictures, prompt, prior, prior_prompt, prior_weight)
    return with_lora(base, low_rank, train, lambda: subject(*given))
