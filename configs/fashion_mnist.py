"""Fashion-MNIST, 28x28 clothes in ten classes: about 20 minutes of one CPU core.

    python -m diffjax.data.prepare fashion_mnist
    python train.py configs/fashion_mnist.py

A U-Net predicts v on the cosine schedule (Salimans & Ho 2022), with the label dropped for a
tenth of the images. It works at half the resolution, on 14x14 squares of four pixels, and its
inner kernels are trained by Muon. Real data and sizes for a first look; on an accelerator give
it more: --steps 50000 --channels 64 --blocks 2.

300 samples at guidance scale 1, by `python benchmarks/fashion_mnist.py samples.npz`; one run
and one draw each, so that two points of agreement are noise:

| | agrees with the label | real images | Frechet over that of real images |
|---|---:|---:|---:|
| 640 steps of 32, lr 2e-3, EMA 0.995 | 69.3% | 89.6% | 1.82 |
| 3000 steps of 32, the default | 81.7% | 89.6% | 1.21 |
"""

from diffjax import conditioning, data, guidance, losses, recipe, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.models.patched import Patched
from diffjax.models.resnet import nearest_up, pool_down
from diffjax.parameterization import predict_v


@recipe.flags(
    train=recipe.cosine_muon,
    unet=recipe.defaults(recipe.unet, channels=48, attention_levels=(1,)),
)
def get_config(
    train, unet, patch: int = 2, label_dropout: float = 0.1, data_dir: str | None = None
) -> Experiment:
    """The experiment.

    Args:
      patch: side of the square of pixels that the U-Net sees as one; 1 is the full resolution.
      label_dropout: share of samples trained without their label.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    schedule, label = schedules.vp_cosine(), conditioning.label(10)
    module = Patched(unet(num_classes=10, resample=(pool_down, nearest_up)), patch)
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
