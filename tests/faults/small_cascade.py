"""A cascade whose start costs little: digits at 4x4, and at 8x8 from those of another run."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from diffjax import (
    cascade,
    conditioning,
    data,
    guidance,
    losses,
    media,
    models,
    recipe,
    schedules,
    weighting,
)
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.parameterization import predict_v
from diffjax.run.stages import drawn_by


class Net(nn.Module):
    """Two layers over the pixels, the time, the label and the level."""

    @nn.compact
    def __call__(self, x, t, cond, train=False):
        numbers = [t / 1000, *(cond[k] for k in ("small_level",) if k in cond)]
        label = jax.nn.one_hot(cond["label"], 11)
        seen = [x.reshape(x.shape[0], -1), jnp.stack(numbers, axis=1), label]
        h = nn.Dropout(0.1, deterministic=not train)(
            nn.tanh(nn.Dense(64)(jnp.concatenate(seen, axis=1)))
        )
        return nn.Dense(x[0, ..., :1].size)(h).reshape(*x.shape[:-1], 1)


def get_config(
    base: str = "", small: int = 4, steps: int = 20, batch_size: int = 8, seed: int = 0
) -> Experiment:
    """The experiment.

    Args:
      base: workdir of the first stage; none is the first stage itself.
      small: side of the first stage's pictures.
      steps: training steps.
      batch_size: images per step.
      seed: of everything random in training.
    """
    schedule, label = schedules.vp_cosine(), conditioning.label(10)
    module, conditions = Net(), (label,)
    if base:
        conditions = (label, drawn_by(base, (small, small, 1), schedule))
        module = models.SuperResolution(module)
    model = recipe.gaussian_model(
        module,
        schedule,
        predict_v,
        (8, 8, 1) if base else (small, small, 1),
        conditions,
        media.small_first(),
        guide=classifier_free,
        finish=guidance.dynamic_threshold,
        sampling=Sampling(steps=2),
    )
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(recipe.network(module), schedule, predict_v, weight, density)
    loss = cascade.noised_condition(loss, schedule) if base else loss
    return Experiment(
        model=model,
        source=lambda: (data.with_small if base else data.smaller)(data.digits(), small),
        loss=lambda frozen: guidance.condition_dropout(loss, label.null, 0.1),
        optimizer=optax.adam(1e-3),
        steps=steps,
        batch_size=batch_size,
        seed=seed,
    )
