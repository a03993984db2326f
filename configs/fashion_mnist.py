"""Fashion-MNIST, 28x28 clothes in ten classes: about 25 minutes on two CPU cores.

    python -m diffjax.data.prepare fashion_mnist
    python train.py configs/fashion_mnist.py

A U-Net predicts v on the cosine schedule, at half the resolution, on 14x14 squares of four
pixels; Muon trains its inner kernels. The noise of the SDE's steps mends what it gets wrong:
docs/evaluation.md. On an accelerator give it more: --steps 50000 --channels 64 --blocks 2.
"""

from diffjax import conditioning, data, guidance, losses, recipe, samplers, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.media import pixels
from diffjax.models.patched import Patched
from diffjax.models.resnet import nearest_up, pool_down
from diffjax.parameterization import predict_v


@recipe.flags(
    train=recipe.defaults(recipe.cosine_muon, steps=7000),
    unet=recipe.defaults(recipe.unet, channels=48, attention_levels=(1,)),
    dropped=recipe.label_dropout,
)
def get_config(train, unet, dropped, patch: int = 2, data_dir: str | None = None) -> Experiment:
    """The experiment.

    Args:
      patch: side of the square of pixels that the U-Net sees as one; 1 is the full resolution.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    schedule, label = schedules.vp_cosine(), conditioning.label(10)
    module = Patched(unet(num_classes=10, resample=(pool_down, nearest_up)), patch)
    given = ((label,), pixels, classifier_free)
    sampling = Sampling(samplers.dpmpp_2m_sde, steps=50, guidance_scale=1.5)
    model = recipe.gaussian_model(
        module, schedule, predict_v, (28, 28, 1), *given, guidance.static_clip, sampling=sampling
    )
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), schedule, predict_v, weight, density)
    return Experiment(
        model=model,
        source=lambda: data.tfds("fashion_mnist", "train", data_dir),
        loss=lambda frozen: dropped(loss, label),
        **train._asdict(),
    )
