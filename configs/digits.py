"""8x8 handwritten digits, class-conditional: the default, 2.5 minutes on two CPU cores.

    python train.py configs/digits.py --workdir runs/digits

Data: scikit-learn's 1,797 digits. A U-Net predicts v on the cosine schedule, with the
label dropped for a tenth of the samples. `python benchmarks/digits.py` measures 500 samples:
expect a classifier to agree with at least 98% of the labels.
"""

from typing import Literal

import jax.numpy as jnp
import optax

from diffjax import grids, guidance, losses, schedules, weighting
from diffjax.config import Experiment, Sampling
from diffjax.data import digits
from diffjax.models import adm_unet, network
from diffjax.parameterization import make_denoiser, predict_v

CLASSES = 10


def get_config(
    steps: int = 1600,
    batch_size: int = 64,
    lr: float = 2e-3,
    warmup: int = 100,
    clip_norm: float = 1.0,
    ema_decay: float = 0.998,
    label_dropout: float = 0.1,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    blocks: int = 1,
    dropout: float = 0.0,
    accumulate: int = 1,
    flip: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
) -> Experiment:
    """The experiment.

    Args:
      steps: training steps.
      batch_size: images per step.
      lr: peak learning rate, after warm-up and before its cosine decay to 0.
      warmup: steps of linear warm-up.
      clip_norm: largest global norm of the gradient.
      ema_decay: limit of the moving average of the parameters.
      label_dropout: share of samples trained without their label.
      channels: width of the U-Net's first level.
      multipliers: width of each level over the first; each level halves the resolution.
      blocks: residual blocks per level.
      dropout: rate inside residual blocks.
      accumulate: pieces a batch is cut into, one gradient at a time.
      flip: mirror half of the images (wrong for digits, here for other data).
      dtype: type of the network's computation; parameters and loss stay float32.
      seed: of everything random in training.
    """
    schedule = schedules.vp_cosine()
    module = adm_unet(
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention_levels=(),
        num_classes=CLASSES,
        dropout=dropout,
        dtype=jnp.dtype(dtype),
    )
    net = network(module)
    shape = (8, 8, 1)

    def init(key):
        x, t, label = jnp.zeros((1, *shape)), jnp.zeros(1), jnp.zeros(1, int)
        return module.init(key, x, t, {"label": label})["params"]

    loss = losses.denoising_loss(
        net, schedule, predict_v, weighting.snr_plus_one, weighting.stratified(schedule)
    )
    warmup = min(warmup, steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, lr, max(warmup, 1), max(steps, 2))
    return Experiment(
        source=digits,
        init=init,
        loss=guidance.condition_dropout(loss, {"label": CLASSES}, label_dropout),
        optimizer=optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(rate)),
        denoiser=lambda params: guidance.static_clip(
            make_denoiser(net, params, schedule, predict_v)
        ),
        schedule=schedule,
        shape=shape,
        num_classes=CLASSES,
        guide=lambda denoiser, scale: guidance.classifier_free(denoiser, scale, {"label": CLASSES}),
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        ema_decay=ema_decay,
        flip=flip,
        seed=seed,
        sampling=Sampling(grid=grids.trailing, steps=50, guidance_scale=1.25),
    )
