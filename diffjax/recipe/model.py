"""The model of a network that is trained by denoising."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffjax import conditioning, guidance
from diffjax.codec import Codec
from diffjax.conditioning import Condition
from diffjax.experiment import NOTHING, Model, Sampling
from diffjax.media import pixels
from diffjax.models import network
from diffjax.parameterization import make_denoiser
from diffjax.types import Denoiser, LossFn, Parameterization, Schedule

USUAL = Sampling()


def first_inputs(
    shape: tuple[int, ...], conditions: tuple[Condition, ...], frozen: Mapping[str, Callable]
) -> tuple:
    """Zeros (x, t, cond) of one sample, to initialise a network with."""
    raw = conditioning.zeros(conditions, 1)
    read = {name: jax.eval_shape(load) for name, load in frozen.items()} if frozen else {}
    shapes = jax.eval_shape(functools.partial(conditioning.encode, conditions), read, raw)
    cond = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
    return jnp.zeros((1, *shape)), jnp.zeros(1), cond


def gaussian_model(
    module: Any,
    schedule: Schedule,
    parameterization: Parameterization,
    shape: tuple[int, ...],
    conditions: tuple[Condition, ...] = (),
    codec: Codec = pixels,
    guide: Callable[..., Denoiser] | None = None,
    finish: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
    frozen: Mapping[str, Callable] = NOTHING,
    sampling: Sampling = USUAL,
) -> Model:
    """The model of a Linen module that is trained by denoising.

    Args:
      module: of `__call__(x, t, cond, train)`.
      schedule: the noise schedule.
      parameterization: what the module predicts.
      shape: of one x.
      conditions: see `Model`, as for the arguments that follow.
      codec: between data and x.
      guide: guidance.
      finish: clipping or thresholding, after the guide.
      frozen: how the parameters of frozen networks are had.
      sampling: defaults of sampling.

    Returns:
      The model.
    """
    net = network(module)

    def init(key):
        return module.init(key, *first_inputs(shape, conditions, frozen))["params"]

    return Model(
        init=init,
        denoiser=lambda params: make_denoiser(net, params, schedule, parameterization),
        example=jax.ShapeDtypeStruct(shape, jnp.float32),
        schedule=schedule,
        conditions=conditions,
        codec=codec,
        guide=guide,
        finish=finish,
        frozen=frozen,
        sampling=sampling,
    )


def label_dropout(label_dropout: float = 0.1) -> Callable[[LossFn, Condition], LossFn]:
    """(loss, label) -> the loss that trains for classifier-free guidance (Ho & Salimans 2022).

    Args:
      label_dropout: share of samples trained without their label.
    """
    return lambda loss, label: guidance.condition_dropout(loss, label.null, label_dropout)


def thresholding(most: float = 1.0) -> Callable[[Denoiser], Denoiser]:
    """The `finish` of a model: dynamic thresholding (Saharia et al. 2022), or clipping.

    Args:
      most: largest quantile that dynamic thresholding divides by; at 1 it is clipping.
    """
    return functools.partial(guidance.dynamic_threshold, maximum=most)
