"""CIFAR-10 with EDM (Karras et al. 2022): DDPM++ or NCSN++, class-conditional or not.

    python train.py configs/cifar10_edm.py --workdir runs/cifar10_edm

Data: the 50,000 training images, `cifar10` of TFDS. The settings are those of the paper and of
its released train.py: 200 million images in batches of 512, Adam at 1e-3 after a linear warm-up
over 10 million images, dropout 0.13, an EMA with a half-life of 0.5 million images.

Expect an FID of 50,000 samples of 1.88 class-conditional and 2.05 unconditional (DDPM++, 18
steps of Heun, 35 network calls): the paper's Table 2, configuration E, which mirrors images as
here. Its configuration F adds the non-leaky augmentation, 1.79 and 1.97, which is left out here.
The paper takes the best of three evaluations. The reference took 2 days on 8 V100.
"""

from typing import Literal

import jax.numpy as jnp
import optax

from diffjax import data, grids, losses, samplers, schedules, weighting
from diffjax.config import Experiment, Sampling
from diffjax.models import edm, network
from diffjax.parameterization import edm_preconditioning, make_denoiser

CLASSES = 10
SIGMA_DATA = 0.5
NETWORKS = {"ddpmpp": edm.ddpmpp_cifar10, "ncsnpp": edm.ncsnpp_cifar10}


def get_config(
    steps: int = 390_625,
    batch_size: int = 512,
    lr: float = 1e-3,
    warmup: int = 19_531,
    ema_decay: float = 0.99929,
    conditional: bool = True,
    arch: Literal["ddpmpp", "ncsnpp"] = "ddpmpp",
    channels: int = 128,
    blocks: int = 4,
    dropout: float = 0.13,
    accumulate: int = 1,
    remat: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
) -> Experiment:
    """The experiment.

    Args:
      steps: training steps; 200 million images in batches of 512.
      batch_size: images per step.
      lr: learning rate after the warm-up, where it stays.
      warmup: steps of linear warm-up; 10 million images in batches of 512.
      ema_decay: limit of the moving average of the parameters, 0.5^(512/500,000).
      conditional: whether the network is given the class.
      arch: the network, DDPM++ (the reference's "vp" files) or NCSN++ ("ve").
      channels: a half of the width of every level.
      blocks: residual blocks per level.
      dropout: rate inside residual blocks.
      accumulate: pieces a batch is cut into, one gradient at a time.
      remat: compute blocks again in the backward pass, for memory.
      dtype: type of the network's computation; parameters and loss stay float32.
      seed: of everything random in training.
    """
    schedule = schedules.edm()
    parameterization = edm_preconditioning(SIGMA_DATA)
    module = NETWORKS[arch](
        channels=channels,
        blocks=blocks,
        dropout=dropout,
        num_classes=CLASSES if conditional else 0,
        augment_dim=0,
        remat=remat,
        dtype=jnp.dtype(dtype),
    )
    net = network(module)
    shape = (32, 32, 3)

    def init(key):
        return module.init(key, jnp.zeros((1, *shape)), jnp.zeros(1))["params"]

    loss = losses.denoising_loss(
        net,
        schedule,
        parameterization,
        weighting.edm_weight(SIGMA_DATA),
        weighting.edm_lognormal(schedule, mean=-1.2, std=1.2),
    )
    return Experiment(
        source=lambda: data.tfds("cifar10", split="train"),
        init=init,
        loss=loss if conditional else losses.unconditional(loss),
        optimizer=optax.adam(optax.linear_schedule(0.0, lr, max(warmup, 1))),
        denoiser=lambda params: make_denoiser(net, params, schedule, parameterization),
        schedule=schedule,
        shape=shape,
        num_classes=CLASSES if conditional else 0,
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        ema_decay=ema_decay,
        flip=True,
        seed=seed,
        sampling=Sampling(sampler=samplers.heun, grid=grids.karras, steps=18),
    )
