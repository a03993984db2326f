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

UNET = recipe.defaults(recipe.unet, channels=48, attention_levels=(1,))


def clothes_model(unet, patch: int = 2):
    """(model, network) that predicts v by a U-Net on squares of `patch` pixels."""
    module = Patched(unet(num_classes=10, resample=(pool_down, nearest_up)), patch)
    sampling = Sampling(samplers.dpmpp_2m_sde, steps=50, guidance_scale=1.5)
    given = ((conditioning.label(10),), pixels, classifier_free, guidance.static_clip)
    network = (module, schedules.vp_cosine(), predict_v, (28, 28, 1))
    return recipe.gaussian_model(*network, *given, sampling=sampling), module


@recipe.flags(
    train=recipe.defaults(recipe.cosine_muon, steps=7000), unet=UNET, dropped=recipe.label_dropout
)
def get_config(train, unet, dropped, patch: int = 2, data_dir: str | None = None) -> Experiment:
    """The experiment.

    Args:
      patch: side of the square of pixels that the U-Net sees as one; 1 is the full resolution.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    model, module = clothes_model(unet, patch)
    density, weight = weighting.stratified(model.schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), model.schedule, predict_v, weight, density)
    source = lambda: data.tfds("fashion_mnist", "train", data_dir)  # noqa: E731
    labelled = lambda frozen: dropped(loss, model.conditions[0])  # noqa: E731
    return Experiment(model=model, source=source, loss=labelled, **train._asdict())
