"""Digits or clothes along given edges: a ControlNet on the frozen network of another run.

    python train.py                                     # the base, runs/digits
    python train.py configs/edges_controlnet.py --workdir runs/edges
    python sample.py runs/edges --edges edges.png

The edges are Canny's (1986), at 32x32. Only the ControlNet is trained: 0.36 million parameters.
For Fashion-MNIST: --images fashion_mnist --base runs/fashion_mnist --channels 48
--attention-levels 1. docs/controlnet.md says how far the drawn edges are the asked ones.
"""

from typing import Literal

from diffjax import conditioning, data, losses, recipe, weighting
from diffjax.data.canny import edges, with_edges
from diffjax.experiment import Experiment
from diffjax.models.patched import Patched
from diffjax.models.resnet import nearest_up, pool_down
from diffjax.parameterization import predict_v
from diffjax.run.weights import from_run


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, lr=1e-3),
    unet=recipe.unet,
    dropped=recipe.label_dropout,
)
def get_config(
    train,
    unet,
    dropped,
    base: str = "runs/digits",
    images: Literal["digits", "fashion_mnist"] = "digits",
    held_out: int = 297,
) -> Experiment:
    """The experiment.

    Args:
      base: workdir of the base, of configs/digits.py or configs/fashion_mnist.py.
      images: what that draws; the flags of the U-Net must be the base's.
      held_out: images at the end of the set that are left out.
    """
    if images == "digits":
        module, side, hint, source = unet(num_classes=10), 32, (16, 32, 32), data.digits
    else:
        module = Patched(unet(num_classes=10, resample=(pool_down, nearest_up)), 2)
        side, hint, source = 28, (16, 32), lambda: data.tfds("fashion_mnist", "train")
    picture = conditioning.image("edges", (side, side, 1), "picture of edges, white on black.")
    picture = picture._replace(encode=lambda frozen, raw: {"image": raw["edges"]})
    trained = from_run(base)
    model, net = recipe.controlnet_model(
        trained.model, trained.load, module, predict_v, picture, hint
    )
    density, weight = weighting.stratified(model.schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(net, model.schedule, predict_v, weight, density)
    label = model.conditions[0]
    return Experiment(
        model=model,
        source=lambda: with_edges(data.without_last(source(), held_out), edges(side)),
        loss=lambda frozen: recipe.on_whole(dropped(loss, label), model, frozen),
        **train._asdict(),
    )
