"""CIFAR-10 with DDPM (Ho et al. 2020): the paper's network, loss and numbers.

    python -m diffjax.data.prepare cifar10
    python train.py configs/cifar10_ddpm.py --workdir runs/cifar10_ddpm

Data: the 50,000 training images, `cifar10` of TFDS, half of them mirrored. Settings of appendix
B: 800,000 steps of 128 images, Adam at 2e-4 after 5,000 steps of warm-up, dropout 0.1, EMA
0.9999; a beta table of 1,000 steps, linear from 1e-4 to 0.02. The paper's FID of 50,000 samples
is 3.17 (Table 1, L_simple, 1,000 ancestral steps), after 10.6 hours on a TPU v3-8.
"""

from diffjax import data, guidance, losses, recipe, samplers, schedules, weighting
from diffjax.experiment import Experiment, Sampling
from diffjax.models import ddpm_unet
from diffjax.parameterization import at_steps, predict_eps

T = 1000
NETWORK = {"channels": 128, "multipliers": (1, 2, 2, 2), "blocks": 2, "dropout": 0.1}


@recipe.flags(
    train=recipe.defaults(recipe.warmup_adam, steps=800_000),
    unet=recipe.defaults(recipe.plain_unet, network=ddpm_unet, **NETWORK),
)
def get_config(train, unet, data_dir: str | None = None) -> Experiment:
    """The experiment.

    Args:
      data_dir: where the set was prepared; default that of tensorflow-datasets.
    """
    schedule, predicts = schedules.from_betas(schedules.linear_betas(T)), at_steps(predict_eps, T)
    sampling = Sampling(samplers.ancestral, steps=T, options={"variance": "large"})
    density = weighting.on_steps(weighting.uniform(schedule), schedule, T)
    loss = losses.denoising_loss(recipe.network(unet), schedule, predicts, weighting.snr, density)
    return Experiment(
        model=recipe.gaussian_model(
            unet, schedule, predicts, (32, 32, 3), finish=guidance.static_clip, sampling=sampling
        ),
        source=lambda: data.tfds("cifar10", "train", data_dir),
        loss=lambda frozen: loss,
        augment=(data.flip,),
        **train._asdict(),
    )
