"""8x8 handwritten digits, class-conditional: the default, 2.5 minutes on two CPU cores.

    python train.py configs/digits.py --workdir runs/digits

Data: scikit-learn's 1,797 digits. A U-Net predicts v on the cosine schedule. 500 samples are
measured by `python benchmarks/digits.py`: a classifier agrees with at least 98% of their labels.
"""

from diffjax import conditioning, data, guidance, losses, recipe, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.parameterization import predict_v


def digits_model(module):
    """The model of a U-Net of labelled digits."""
    how = {"sampling": Sampling(steps=50, guidance_scale=1.25), "finish": guidance.static_clip}
    given = (module, schedules.vp_cosine(), predict_v, (8, 8, 1), (conditioning.label(10),))
    return recipe.gaussian_model(*given, guide=classifier_free, **how)


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=1600),
    unet=recipe.unet,
    dropped=recipe.label_dropout,
)
def get_config(train, unet, dropped, flip: bool = False) -> Experiment:
    """The experiment.

    Args:
      flip: mirror half of the images (wrong for digits, here for other data).
    """
    module = unet(num_classes=10)
    model = digits_model(module)
    density, weight = weighting.stratified(model.schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), model.schedule, predict_v, weight, density)
    return Experiment(
        model=model,
        source=data.digits,
        loss=lambda frozen: dropped(loss, model.conditions[0]),
        augment=(data.flip,) if flip else (),
        **train._asdict(),
    )
