"""CIFAR-10 with DDPM (Ho et al. 2020): the paper's network, loss and numbers.

    python -m diffjax.data.prepare cifar10
    python train.py configs/cifar10_ddpm.py --workdir runs/cifar10_ddpm

Data: the 50,000 training images, `cifar10` of TFDS, half of them mirrored. The settings are
those of the paper's appendix B: 800,000 steps of 128 images, Adam at 2e-4 after 5,000 steps of
warm-up, dropout 0.1, EMA 0.9999; a beta table of 1,000 steps, linear from 1e-4 to 0.02.

Expect an FID of 50,000 samples against the training set of 3.17 (the paper's Table 1,
L_simple, 1,000 ancestral steps). The reference took 10.6 hours on a TPU v3-8 (appendix B).
"""

from typing import Literal

import jax.numpy as jnp
import optax

from diffjax import data, grids, guidance, losses, samplers, schedules, weighting
from diffjax.config import Experiment, Sampling
from diffjax.models import ddpm_unet, network
from diffjax.parameterization import at_steps, make_denoiser, predict_eps

T = 1000


def get_config(
    steps: int = 800_000,
    batch_size: int = 128,
    lr: float = 2e-4,
    warmup: int = 5_000,
    clip_norm: float = 1.0,
    ema_decay: float = 0.9999,
    channels: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2, 2),
    blocks: int = 2,
    dropout: float = 0.1,
    accumulate: int = 1,
    data_dir: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
) -> Experiment:
    """The experiment.

    Args:
      steps: training steps.
      batch_size: images per step.
      lr: learning rate after the warm-up.
      warmup: steps of linear warm-up.
      clip_norm: largest global norm of the gradient.
      ema_decay: limit of the moving average of the parameters.
      channels: width of the U-Net's first level.
      multipliers: width of each level over the first; each level halves the resolution.
      blocks: residual blocks per level.
      dropout: rate inside residual blocks.
      accumulate: pieces a batch is cut into, one gradient at a time.
      data_dir: where the set was prepared; default that of tensorflow-datasets.
      dtype: type of the network's computation; parameters and loss stay float32.
      seed: of everything random in training.
    """
    schedule, predicts = schedules.from_betas(schedules.linear_betas(T)), at_steps(predict_eps, T)
    module = ddpm_unet(channels, multipliers, blocks, dropout=dropout, dtype=jnp.dtype(dtype))
    net, shape = network(module), (32, 32, 3)
    loss = losses.denoising_loss(
        net,
        schedule,
        predicts,
        weighting.snr,
        weighting.on_steps(weighting.uniform(schedule), schedule, T),
    )
    return Experiment(
        source=lambda: data.tfds("cifar10", "train", data_dir),
        init=lambda key: module.init(key, jnp.zeros((1, *shape)), jnp.zeros(1))["params"],
        loss=losses.unconditional(loss),
        optimizer=optax.chain(
            optax.clip_by_global_norm(clip_norm),
            optax.adam(optax.linear_schedule(0.0, lr, max(warmup, 1))),
        ),
        denoiser=lambda params: guidance.static_clip(
            make_denoiser(net, params, schedule, predicts)
        ),
        schedule=schedule,
        shape=shape,
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        ema_decay=ema_decay,
        flip=True,
        seed=seed,
        sampling=Sampling(samplers.ancestral, grids.trailing, T, options={"variance": "large"}),
    )
