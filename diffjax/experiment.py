"""The two records around the mathematics: a model, and an experiment that trains it.

A `Model` is all that sampling, previews, evaluation, editing, export and serving take, whether
it was trained here or published elsewhere. An `Experiment` is a model and how it is trained.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import optax

from diffjax import guidance
from diffjax.codec import Codec
from diffjax.conditioning import Condition
from diffjax.diffusion import prior_sample
from diffjax.errors import InputError
from diffjax.grids import trailing
from diffjax.media import pixels
from diffjax.samplers import ddim
from diffjax.training.averages import DEFAULT, Averages
from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    LossFn,
    Params,
    PRNGKeyArray,
    PyTree,
    Sampler,
    Schedule,
    Time,
)

Frozen = Mapping[str, PyTree]
"""Parameters of networks that are read and never trained, by name."""

Loaders = Mapping[str, Callable[[], PyTree]]
"""How frozen parameters are had, by name: called once, where a run or a draw begins."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Sampling(NamedTuple):
    """How samples are drawn where nothing else is asked for.

    Attributes:
      sampler: a constructor of `diffjax.samplers`.
      grid: a function of `diffjax.grids`, (schedule, n) -> ts.
      steps: number of steps.
      guidance_scale: 1 is no guidance.
      options: keywords of the sampler's constructor.
      grid_options: keywords of the grid's function.
      num: number of samples.
      batch_size: samples per compiled call.
    """

    sampler: Callable[..., Sampler] = ddim
    grid: Callable[..., Array] = trailing
    steps: int = 50
    guidance_scale: float = 1.0
    options: Mapping[str, Any] = NOTHING
    grid_options: Mapping[str, Any] = NOTHING
    num: int = 100
    batch_size: int = 250


def alone(params: Params, frozen: Frozen) -> Params:
    """The `whole` of a model whose denoiser takes the trained parameters and no others."""
    return params


def afresh(params: Params, frozen: Frozen) -> tuple[Params, dict[str, Any]]:
    """The `start` of an experiment whose parameters begin as they were initialised."""
    return params, {}


def classifier_free(denoiser: Denoiser, scale: Time, null: Cond, frozen: Frozen) -> Denoiser:
    """The `guide` of a model trained with `condition_dropout`: `guidance.classifier_free`."""
    return guidance.classifier_free(denoiser, scale, null)


class Model(NamedTuple):
    """All that sampling needs.

    Attributes:
      init: key -> parameters.
      denoiser: parameters -> denoiser.
      example: shape and dtype of one x, without the batch axis.
      schedule: the noise schedule.
      conditions: what can be asked for, see `conditioning`.
      codec: between data and x, with the writers of its files.
      guide: (denoiser, scale, null, frozen) -> guided denoiser; None where there is no guidance.
      finish: denoiser -> denoiser, applied after the guide, such as `guidance.static_clip`.
      frozen: name -> () -> parameters of networks that codec, conditions or guide read.
      prior: (key, schedule, (B, ...), first, t) -> x at time t, where sampling begins.
      sampling: defaults of sampling.
      whole: (params, frozen) -> the parameters that `denoiser` takes; a ControlNet's has its
        frozen base with it.
    """

    init: Callable[[PRNGKeyArray], Params]
    denoiser: Callable[[Params], Denoiser]
    example: jax.ShapeDtypeStruct
    schedule: Schedule
    conditions: tuple[Condition, ...] = ()
    codec: Codec = pixels
    guide: Callable[..., Denoiser] | None = None
    finish: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser
    frozen: Loaders = NOTHING
    prior: Callable[..., Array] = prior_sample
    sampling: Sampling = Sampling()
    whole: Callable[[Params, Frozen], Params] = alone


class Experiment(NamedTuple):
    """A model and how it is trained.

    Attributes:
      model: what is trained.
      source: () -> the data, see `diffjax.data`.
      loss: frozen -> `LossFn` of encoded batches, {"x": ..., and the arrays of the conditions}.
      optimizer: an Optax transformation, with clipping and learning rate inside.
      frozen: name -> () -> parameters that the loss alone reads, such as a teacher's.
      augment: functions (example, NumPy generator) -> example, applied in order.
      averages: name -> (step -> decay) of moving averages of the parameters; samples are drawn
        with the first.
      learning_rate: step -> learning rate, for the log and for a run that is made longer.
      steps: training steps.
      batch_size: examples per step.
      accumulate: microbatches of a batch, one gradient at a time.
      seed: of the initial parameters, the data order and every draw in training.
      context: initial context of the loss, see `LossFn`.
      data_shape: of one x of the data, where the codec encodes it to another shape.
      resolved: keywords of `get_config` that were read off the data, as config.json keeps them.
      parts: what other runs take of this one, by name, such as `latents.Autoencoder`.
      start: (initialised parameters, frozen) -> (the parameters that training begins at, entries of
        the context); a student begins at copies of its frozen teacher's parameters.
    """

    model: Model
    source: Callable[[], Any]
    loss: Callable[[Frozen], LossFn]
    optimizer: optax.GradientTransformation
    frozen: Loaders = NOTHING
    augment: tuple[Callable, ...] = ()
    averages: Averages = DEFAULT
    learning_rate: Callable[[Array], Array] | None = None
    steps: int = 1000
    batch_size: int = 64
    accumulate: int = 1
    seed: int = 0
    context: dict[str, Any] | None = None
    data_shape: tuple[int, ...] | None = None
    resolved: Mapping[str, Any] = NOTHING
    parts: Mapping[str, Any] = NOTHING
    start: Callable[[Params, Frozen], tuple[Params, dict[str, Any]]] = afresh


def guided(model: Model, params: Params, scale: Time, null: Cond, frozen: Frozen) -> Denoiser:
    """The model's denoiser with its guide, and then its finish.

    Raises:
      InputError: the model has no guide.
    """
    if model.guide is None:
        raise InputError("this model has no guidance; leave --guidance-scale at 1.")
    denoiser = model.denoiser(model.whole(params, frozen))
    return model.finish(model.guide(denoiser, scale, null, frozen))


def unguided(model: Model, params: Params, frozen: Frozen = NOTHING) -> Denoiser:
    """The model's denoiser with its finish."""
    return model.finish(model.denoiser(model.whole(params, frozen)))


def check_same_tree(found: PyTree, wanted: PyTree, what: str) -> None:
    """Refuse parameters of another network.

    Args:
      found: parameters, or their shapes.
      wanted: those of the network, or their shapes.
      what: the found ones are, for the message.

    Raises:
      InputError: names the first parameter that is missing, too many or of another shape.
    """

    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}

    have, want = shapes(found), shapes(wanted)
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise InputError(
                f"{what} are weights of another network: parameter {name} is "
                f"{have.get(name, 'not there')} there and {want.get(name, 'not wanted')} here; "
                "give the flags of the network that they were trained with."
            )
