"""DiT-XL/2 on ImageNet at 256x256, in the latents of Stable Diffusion's autoencoder.

    python train.py configs/imagenet256_dit.py --latents-path latents.npz --workdir runs/dit

Data: the 1,281,167 training images, cut to their central square of 256 pixels and encoded
once: an npz of `x` (N, 32, 32, 4) float, 0.18215 times a draw of the "ft-EMA" autoencoder's
latents, and `label` (N,) int.

Expect, with 250 steps of the ancestral sampler and learned variance, an FID of 50,000
samples of 19.5 after 400,000 steps without guidance (18.1 by the authors' PyTorch code, says
its README, with the "mse" decoder) and of 2.27 after seven million steps at guidance scale
1.5 (Peebles & Xie 2023).
"""

from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
import optax

from diffjax import grids, guidance, losses, samplers, schedules, weighting
from diffjax.config import Experiment, Sampling
from diffjax.data import Arrays, Source
from diffjax.models import dit_xl_2, network
from diffjax.parameterization import at_steps, make_denoiser, predict_eps

CLASSES, T = 1000, 1000
LEARNED = {"variance": "learned"}


def latents(path: str) -> Source:
    """Latents and labels of an npz file, as they are."""
    with np.load(path, allow_pickle=False) as file:
        x, label = file["x"].astype(np.float32), file["label"].astype(np.int32)
    return Source(Arrays(x=x, label=label), x.shape[1:], CLASSES)


def get_config(
    latents_path: str = "latents.npz",
    steps: int = 400_000,
    batch_size: int = 256,
    lr: float = 1e-4,
    weight_decay: float = 0.0,
    ema_decay: float = 0.9999,
    label_dropout: float = 0.1,
    size: int = 32,
    width: int = 1152,
    depth: int = 28,
    heads: int = 16,
    patch_size: int = 2,
    accumulate: int = 1,
    remat: bool = False,
    scan_blocks: bool = True,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
    seed: int = 0,
) -> Experiment:
    """The experiment.

    Args:
      latents_path: npz of `x` (N, size, size, 4) and `label` (N,).
      steps: training steps.
      batch_size: images per step.
      lr: learning rate, constant.
      weight_decay: of AdamW.
      ema_decay: limit of the moving average of the parameters.
      label_dropout: share of samples trained without their label.
      size: side of the latents.
      width: channels of a token.
      depth: number of blocks.
      heads: attention heads.
      patch_size: side of a patch.
      accumulate: pieces a batch is cut into, one gradient at a time.
      remat: recompute blocks in the backward pass to save memory.
      scan_blocks: compile one block for all.
      dtype: type of the network's computation; parameters and loss stay float32.
      seed: of everything random in training.
    """
    schedule = schedules.from_betas(schedules.linear_betas(T))
    module = dit_xl_2(
        width=width,
        depth=depth,
        heads=heads,
        patch_size=patch_size,
        num_classes=CLASSES,
        remat=remat,
        scan_blocks=scan_blocks,
        dtype=jnp.dtype(dtype),
    )
    net, predict = network(module), at_steps(predict_eps, T)
    shape = (size, size, 4)

    def init(key):
        x, t, label = jnp.zeros((1, *shape)), jnp.zeros(1), jnp.zeros(1, int)
        return module.init(key, x, t, {"label": label})["params"]

    density = weighting.on_steps(weighting.uniform(schedule), schedule, T)
    loss = losses.hybrid_loss(net, schedule, predict, density, T)
    return Experiment(
        source=partial(latents, latents_path),
        init=init,
        loss=guidance.condition_dropout(loss, {"label": CLASSES}, label_dropout),
        optimizer=optax.adamw(lr, weight_decay=weight_decay),
        denoiser=lambda params: make_denoiser(net, params, schedule, predict),
        schedule=schedule,
        shape=shape,
        num_classes=CLASSES,
        guide=lambda denoiser, scale: guidance.classifier_free(denoiser, scale, {"label": CLASSES}),
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        ema_decay=ema_decay,
        seed=seed,
        sampling=Sampling(
            samplers.ancestral, grids.trailing, 250, guidance_scale=1.5, options=LEARNED
        ),
    )
