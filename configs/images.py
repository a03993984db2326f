"""Your own images: a folder or an npz file, and nothing but flags.

    python train.py configs/images.py --data photos --size 64
    python train.py configs/images.py --data photos --size 64 --network dit --conditional

A folder of PNG, JPEG or WebP files, with a folder per class if --conditional (without it,
classes and captions are left aside), or an npz of `x` (N, H, W, C) uint8 and `label` (N,).
"""

from typing import Literal

from diffjax import conditioning, guidance, losses, recipe, schedules, weighting
from diffjax import data as sources
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.parameterization import predict_v


@recipe.flags(
    train=recipe.defaults(
        recipe.cosine_adam, steps=20_000, batch_size=32, lr=5e-4, ema_decay=0.999
    ),
    make=recipe.sized_network,
    dropped=recipe.label_dropout,
)
def get_config(
    train,
    make,
    dropped,
    data: str = "photos",
    size: int = 64,
    network: Literal["unet", "dit"] = "unet",
    conditional: bool = False,
    flip: bool = False,
    classes: int | None = None,
    channels: int | None = None,
) -> Experiment:
    """The experiment.

    Args:
      data: a folder of images, or an npz file.
      size: side to which the central square of each image is resized.
      network: a U-Net or a diffusion transformer.
      conditional: whether to train on the classes of the data.
      flip: mirror half of the images left to right.
      classes: number of classes; default read off the data.
      channels: of an image; default read off the data.
    """
    source = None if classes is not None and channels else sources.images(data, size, conditional)
    classes = source.num_classes if classes is None else classes
    channels = channels or source.shape[-1]
    schedule = schedules.shifted(schedules.vp_cosine(), max(1.0, size / 64))
    label = (conditioning.label(classes),) if classes else ()
    module = make(network, size, channels, classes)
    model = recipe.gaussian_model(
        module,
        schedule,
        predict_v,
        (size, size, channels),
        label,
        guide=classifier_free if classes else None,
        finish=guidance.static_clip,
        sampling=Sampling(steps=50, guidance_scale=1.5 if classes else 1.0),
    )
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), schedule, predict_v, weight, density)
    return Experiment(
        model=model,
        source=lambda: source or sources.images(data, size, conditional),
        loss=lambda frozen: dropped(loss, *label) if classes else loss,
        augment=(sources.flip,) if flip else (),
        resolved={"classes": classes, "channels": channels},
        **train._asdict(),
    )
