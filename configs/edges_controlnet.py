"""Digits or clothes along given edges: a ControlNet on the frozen network of another run.

    python train.py                                     # the base, runs/digits
    python train.py configs/edges_controlnet.py --workdir runs/edges
    python sample.py runs/edges --edges edges.png

The edges are Canny's (1986), at 32x32. Only the ControlNet is trained: 0.36 million parameters.
For Fashion-MNIST: --images fashion_mnist --base runs/fashion_mnist --channels 48
--attention-levels 1. docs/controlnet.md says how far the drawn edges are the asked ones.
"""

from typing import Literal

from diffjax import conditioning, data, guidance, losses, recipe, weighting
from diffjax.data.canny import edges, with_edges
from diffjax.experiment import Experiment
from diffjax.models.patched import Patched
from diffjax.models.resnet import nearest_up, pool_down
from diffjax.parameterization import predict_v
from diffjax.run.weights import from_run


def clothes(unet):
    """The network of configs/fashion_mnist.py."""
    return Patched(unet(num_classes=10, resample=(pool_down, nearest_up)), 2)


# The data, the base's network, the side of the pictures of edges, the layers that read them.
SETS = {
    "digits": (data.digits, lambda unet: unet(num_classes=10), 32, (16, 32, 32)),
    "fashion_mnist": (lambda: data.tfds("fashion_mnist", "train"), clothes, 28, (16, 32)),
}


@recipe.flags(train=recipe.defaults(recipe.cosine_adam, steps=1000, lr=1e-3), unet=recipe.unet)
def get_config(
    train,
    unet,
    base: str = "runs/digits",
    images: Literal["digits", "fashion_mnist"] = "digits",
    label_dropout: float = 0.1,
    held_out: int = 297,
) -> Experiment:
    """The experiment.

    Args:
      base: workdir of the base, of configs/digits.py or configs/fashion_mnist.py.
      images: what that draws; the flags of the U-Net must be the base's.
      label_dropout: share of samples trained without their label.
      held_out: images at the end of the set that are left out.
    """
    source, make, side, hint = SETS[images]
    trained, module = from_run(base), make(unet)
    picture = conditioning.image("edges", (side, side, 1), "picture of edges, white on black.")
    picture = picture._replace(encode=lambda frozen, raw: {"image": raw["edges"]})
    model, net = recipe.controlnet_model(
        trained.model, trained.load, module, predict_v, picture, hint
    )
    schedule = model.schedule
    density = weighting.stratified(schedule)
    denoise = losses.denoising_loss(net, schedule, predict_v, weighting.snr_plus_one, density)
    dropped = guidance.condition_dropout(denoise, model.conditions[0].null, label_dropout)
    return Experiment(
        model=model,
        source=lambda: with_edges(data.without_last(source(), held_out), edges(side)),
        loss=lambda frozen: recipe.on_whole(dropped, model, frozen),
        **train._asdict(),
    )
