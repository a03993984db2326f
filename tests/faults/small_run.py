"""A run whose start costs little: digits, and a network of two layers, for tests that restart."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from diffjax import conditioning, losses, models, recipe, schedules, weighting
from diffjax.data import digits
from diffjax.experiment import Experiment, Sampling
from diffjax.parameterization import predict_v


class Net(nn.Module):
    """Two layers over the pixels, the time and the label."""

    width: int

    @nn.compact
    def __call__(self, x, t, cond, train=False):
        label = jax.nn.one_hot(cond["label"], 10)
        h = jnp.concatenate([x.reshape(x.shape[0], -1), t[:, None] / 1000, label], axis=1)
        h = nn.Dropout(0.1, deterministic=not train)(nn.tanh(nn.Dense(self.width)(h)))
        return nn.Dense(64)(h).reshape(x.shape)


def get_config(
    steps: int = 400, batch_size: int = 16, width: int = 256, accumulate: int = 1, seed: int = 0
) -> Experiment:
    """The experiment.

    Args:
      steps: training steps.
      batch_size: images per step.
      width: of the hidden layer.
      accumulate: pieces a batch is cut into.
      seed: of everything random in training.
    """
    schedule, label = schedules.vp_cosine(), (conditioning.label(10),)
    module, density = Net(width), weighting.stratified(schedule)
    net, weight = models.network(module), weighting.snr_plus_one
    loss = losses.denoising_loss(net, schedule, predict_v, weight, density)
    return Experiment(
        model=recipe.gaussian_model(
            module, schedule, predict_v, (8, 8, 1), label, sampling=Sampling(steps=4)
        ),
        source=digits,
        loss=lambda frozen: loss,
        optimizer=optax.adam(1e-3),
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        seed=seed,
    )
