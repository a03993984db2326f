"""Students: a network that begins at its teacher's weights, as a model and an experiment."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.distill.flow_map import two_time_denoiser
from diffjax.distill.frozen_teacher import FrozenTeacher
from diffjax.distill.guidance import at_scale
from diffjax.distill.sampling import consistency_sampler, flow_map_sampler
from diffjax.distill.teacher import SCALE
from diffjax.errors import InputError
from diffjax.experiment import Experiment, Frozen, Model, Sampling
from diffjax.models import TwoTimes, network, with_features
from diffjax.parameterization import make_denoiser
from diffjax.recipe.model import first_inputs
from diffjax.types import LossFn, Network, Parameterization, Params, Prediction

UNTIL = "until"
ONE_STEP = Sampling(consistency_sampler, steps=1)
JUMPS = Sampling(flow_map_sampler, steps=1)


class Student(NamedTuple):
    """A network of few steps.

    Attributes:
      model: for sampling.
      module: its network as a Linen module.
      network: that a loss is of, the same as a function.
      inputs: () -> (x, t, cond) of one sample, as the network is given them.
      start: (its initialised parameters, those of the base's network) -> where training begins.
    """

    model: Model
    module: nn.Module
    network: Network
    inputs: Callable[[], tuple]
    start: Callable[[Params, Params], Params]


def student(
    base: Model,
    module: nn.Module,
    parameterization: Parameterization,
    numbers: tuple[str, ...] = (SCALE,),
    sampling: Sampling = ONE_STEP,
) -> Student:
    """The student of a model: its network, which may be given further numbers.

    Args:
      base: the model as it is trained by denoising, with the conditions, codec and finish.
      module: its network.
      parameterization: what that predicts.
      numbers: "until" makes a network of two times, see `two_time_denoiser`; "guidance_scale"
        makes the scale of guidance an input, which is 1 where none is asked for. Without it the
        student is guided as the base is, for which it must be trained with dropped conditions.
      sampling: defaults of sampling; the scale of guidance is the base's.

    Returns:
      The student. Its finish is the base's for a network of one time: a jump's x0_hat is no mean.
    """
    whole = TwoTimes(module, numbers) if numbers else module
    net = network(whole)
    make = two_time_denoiser if UNTIL in numbers else make_denoiser

    def inputs():
        x, t, cond = first_inputs(base.example.shape, base.conditions, base.frozen)
        return x, t, {**(cond or {}), **dict.fromkeys(numbers, t)} or None

    def init(key):
        return whole.init(key, *inputs())["params"]

    def denoiser(params):
        inner = make(net, params, base.schedule, parameterization)
        return partial(_without_guidance, inner) if SCALE in numbers else inner

    def start(params, known):
        known = jax.tree.map(jnp.copy, known)  # never the teacher's own, which are donated
        return {**params, "module": known} if numbers else known

    guide = _at_scale if SCALE in numbers else base.guide
    finish = base.finish if UNTIL not in numbers else Model._field_defaults["finish"]
    made = {"init": init, "denoiser": denoiser, "guide": guide, "finish": finish}
    scale = base.sampling.guidance_scale if SCALE in numbers else 1.0
    made["sampling"] = sampling._replace(guidance_scale=scale)
    return Student(base._replace(**made), whole, net, inputs, start)


def _without_guidance(denoiser, x, t, cond) -> Prediction:
    return denoiser(x, t, {SCALE: jnp.ones(x.shape[:1], x.dtype), **(cond or {})})


def _at_scale(denoiser, scale, null, frozen):
    return at_scale(denoiser, scale)


def with_critic(of: Student) -> Student:
    """A student beside a critic of the same network: parameters {"generator", "critic"}.

    Args:
      of: the student, which becomes the generator.

    Returns:
      The student whose critic begins at the teacher's weights too, and is not sampled.
    """

    def init(key):
        first, second = jax.random.split(key)
        return {"generator": of.model.init(first), "critic": of.model.init(second)}

    def start(params, known):
        return {name: of.start(each, known) for name, each in params.items()}

    def denoiser(params):
        return of.model.denoiser(params["generator"])

    return of._replace(model=of.model._replace(init=init, denoiser=denoiser), start=start)


def with_head(of: Student, layer: str, head: nn.Module) -> tuple[Student, Callable]:
    """A student whose critic has a head on one of its layers, with parameters "head" beside it.

    Args:
      of: the student, from `with_critic`.
      layer: of its network, as `models.with_features` takes it, such as "middle_1" of a U-Net.
      head: (the layer's output) -> logits; begins as it is initialised.

    Returns:
      The student, and (params, x, c_noise, cond) -> logits for `adversarial_head`.
    """
    features = with_features(of.module, layer)

    def init(key):
        first, second = jax.random.split(key)
        params = of.model.init(first)
        _, seen = jax.eval_shape(features, params["critic"], *of.inputs(), None)
        return {**params, "head": head.init(second, jnp.zeros(seen.shape, seen.dtype))["params"]}

    def start(params, known):
        rest = {name: each for name, each in params.items() if name != "head"}
        return {**of.start(rest, known), "head": params["head"]}

    def discriminate(params, x, c_noise, cond):
        _, seen = features(params["critic"], x, c_noise, cond, None)
        return head.apply({"params": params["head"]}, seen)

    return of._replace(model=of.model._replace(init=init), start=start), discriminate


def at_drawn_scales(loss: LossFn, scales: tuple[float, float]) -> LossFn:
    """A loss of batches to which a guidance scale of each sample is added, drawn uniformly.

    Args:
      loss: of a network and a teacher that read cond["guidance_scale"].
      scales: the lowest and the highest; 1 is no guidance.

    Returns:
      A `LossFn` with the same context.

    Raises:
      InputError: the scales are not in order.
    """
    low, high = scales
    if not low <= high:
        raise InputError(f"scales are the lowest and the highest; got {low} and {high}.")

    def drawn(params, key, batch, **context):
        scale_key, key = jax.random.split(key)
        scale = jax.random.uniform(scale_key, batch["x"].shape[:1], batch["x"].dtype, low, high)
        return loss(params, key, {**batch, SCALE: scale}, **context)

    return drawn


def experiment(
    of: Student,
    loss: LossFn,
    source: Callable[[], Any],
    training: Mapping[str, Any],
    teacher: FrozenTeacher | None = None,
) -> Experiment:
    """The experiment of a student, counted in the context's `iteration`.

    Args:
      of: the student.
      loss: given `frozen` where there is a teacher.
      source: () -> the data.
      training: fields of `Experiment`: the optimizer, the steps and so on.
      teacher: where training begins and what the loss learns from; without one the parameters
        begin as they are initialised, unless --init-from says otherwise.

    Returns:
      The experiment.
    """
    context = {"iteration": np.zeros((), np.int32)}
    given = {"model": of.model, "source": source, "context": context, **training}
    if teacher is None:
        return Experiment(loss=lambda frozen: loss, **given)

    def start(params: Params, frozen: Frozen):
        return of.start(params, frozen["teacher"]), {}

    return Experiment(
        loss=lambda frozen: partial(loss, frozen=frozen),
        frozen={"teacher": teacher.load},
        start=start,
        **given,
    )


def with_past(made: Experiment) -> Experiment:
    """An experiment whose context has a copy of where training begins, as `teacher_params`."""

    def start(params, frozen):
        begun, context = made.start(params, frozen)
        return begun, {**context, "teacher_params": jax.tree.map(jnp.copy, begun)}

    return made._replace(start=start)
