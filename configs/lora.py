"""A LoRA on the network of another run: Fashion-MNIST at 8x8 by what has learned digits.

    python train.py                                     # the base, runs/digits
    python -m diffjax.data.prepare fashion_mnist
    python train.py configs/lora.py --base runs/digits --rank 4 --method lora_ga
    python sample.py runs/lora

Only the LoRA is trained and saved; the base is read, and must stay where it is. Any run can be
one, with any --data of its kind. docs/fine_tuning.md compares the methods.
"""

from diffjax import data as sources
from diffjax import recipe
from diffjax.experiment import Experiment
from diffjax.run.fine_tuning import with_lora
from diffjax.run.workdir import load_experiment


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=800, lr=5e-3, warmup=50, ema_decay=0.99),
    low_rank=recipe.defaults(recipe.low_rank, layers="all"),
)
def get_config(
    train, low_rank, base: str = "runs/digits", data: str = "tfds:fashion_mnist"
) -> Experiment:
    """The experiment.

    Args:
      base: workdir of the network that is fine-tuned.
      data: tfds:NAME of a prepared set, a folder of images, an npz file, or `same` for the base's.
    """
    model = load_experiment(base).model
    size, labelled = model.example.shape[0], bool(model.conditions)

    def source():
        if data.startswith("tfds:"):
            return sources.tfds(data.removeprefix("tfds:"), "train", size=size)
        return sources.images(data, size, conditional=labelled)

    return with_lora(base, low_rank, train, None if data == "same" else source)
