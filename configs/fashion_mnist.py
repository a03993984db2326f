"""Fashion-MNIST, 28x28 clothes in ten classes: about 20 minutes on two CPU cores.

    python -m diffjax.data.prepare fashion_mnist
    python train.py configs/fashion_mnist.py

A U-Net predicts v on the cosine schedule (Salimans & Ho 2022), with the label dropped for a
tenth of the images. Real data and sizes for a first look; on an accelerator give it more:
--steps 50000 --channels 64 --blocks 2.
"""

from diffjax import conditioning, data, guidance, losses, recipe, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.parameterization import predict_v


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=1300),
    unet=recipe.defaults(recipe.unet, multipliers=(1, 2, 2), attention_levels=(2,)),
)
def get_config(train, unet, data_dir: str | None = None, label_dropout: float = 0.1) -> Experiment:
    """The experiment.

    Args:
      data_dir: where the set was prepared; default that of tensorflow-datasets.
      label_dropout: share of samples trained without their label.
    """
    schedule, label = schedules.vp_cosine(), conditioning.label(10)
    module = unet(num_classes=10, groups=None)
    model = recipe.gaussian_model(
        module,
        schedule,
        predict_v,
        (28, 28, 1),
        (label,),
        guide=classifier_free,
        finish=guidance.static_clip,
        sampling=Sampling(steps=50, guidance_scale=1.5),
    )
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), schedule, predict_v, weight, density)
    return Experiment(
        model=model,
        source=lambda: data.tfds("fashion_mnist", "train", data_dir),
        loss=lambda frozen: guidance.condition_dropout(loss, label.null, label_dropout),
        **train._asdict(),
    )
