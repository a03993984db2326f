"""CIFAR-10 with EDM (Karras et al. 2022), configuration E: preconditioning, loss and sampler.

    python train.py configs/cifar10_edm.py --workdir runs/cifar10_edm

Settings of the reference: 390,625 steps of 512 images, Adam at 1e-3 after 10 million images of
warm-up, dropout 0.13, EMA with a half-life of 0.5 million images. The paper's FID of 50,000
samples is 1.88 class-conditional and 2.05 unconditional (Table 2, E: DDPM++, 18 steps of Heun,
the best of three), after 2 days on 8 V100. Its F adds the non-leaky augmentation, left out here.
"""

from diffjax import conditioning, data, grids, losses, recipe, samplers, schedules, weighting
from diffjax.experiment import Experiment, Sampling
from diffjax.parameterization import edm_preconditioning

OPTIMIZER = {"steps": 390_625, "batch_size": 512, "lr": 1e-3, "warmup": 19_531, "clip_norm": None}
SHAPE = (32, 32, 3)


@recipe.flags(
    train=recipe.defaults(recipe.warmup_adam, ema_decay=0.99929, **OPTIMIZER),
    network=recipe.song_unet,
)
def get_config(train, network, conditional: bool = True) -> Experiment:
    """The experiment.

    Args:
      conditional: whether the network is given the class.
    """
    schedule, predicts = schedules.edm(), edm_preconditioning(0.5)
    module = network(num_classes=10 if conditional else 0)
    label = (conditioning.label(10)._replace(null=None),) if conditional else ()
    sampling = Sampling(samplers.heun, grids.karras, steps=18)
    density = weighting.edm_lognormal(schedule, mean=-1.2, std=1.2)
    weight, net = weighting.edm_weight(0.5), recipe.network(module)
    loss = losses.denoising_loss(net, schedule, predicts, weight, density)
    return Experiment(
        model=recipe.gaussian_model(module, schedule, predicts, SHAPE, label, sampling=sampling),
        source=lambda: data.tfds("cifar10", split="train"),
        loss=lambda frozen: loss,
        augment=(data.flip,),
        **train._asdict(),
    )
