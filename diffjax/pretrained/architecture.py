"""What a family of published networks must say for its weights to be read and written."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models import network as as_network
from diffjax.pretrained.arguments import EMA, typed
from diffjax.pretrained.naming import Names
from diffjax.pretrained.sampling import SchedulerDefaults, sampling_of
from diffjax.types import Array, Network, Parameterization, Params, Schedule


class Pretrained(NamedTuple):
    """A published network, ready to sample.

    `make_denoiser(network, params, schedule, parameterization)` is its denoiser.

    Attributes:
      network: (params, x, t, cond, key) -> raw output, NHWC, at the time that the reference's
        own network is given.
      params: float32, under our names.
      schedule: that it was trained on.
      parameterization: what it predicts; its c_noise is the reference's time.
      module: the Linen module.
      config: of the file it came from.
      sampling: how its scheduler_config.json samples.
      null_label: whether the label `num_classes` was trained to stand for none.
    """

    network: Network
    params: Params
    schedule: Schedule
    parameterization: Parameterization
    module: nn.Module
    config: dict[str, Any]
    sampling: SchedulerDefaults = SchedulerDefaults()
    null_label: bool = False


class Autoencoder(NamedTuple):
    """A published autoencoder.

    Attributes:
      encode: (params, x (B, H, W, C)) -> (mean, logvar) of the latents.
      decode: (params, latents (B, h, w, c)) -> x; an asymmetric one also takes the image and
        the mask of what is kept.
      params: float32, under our names.
      config: of the file it came from; its `scaling_factor`, where there is one, is what
        latents are multiplied by before a diffusion model sees them.
    """

    encode: Callable[[Params, Array], tuple[Array, Array]]
    decode: Callable[..., Array]
    params: Params
    config: dict[str, Any]


class PretrainedClassifier(NamedTuple):
    """A published classifier of noisy images.

    Attributes:
      network: (params, x, t, cond, key) -> logits (B, classes), NHWC, t in steps.
      params: float32, under our names.
      module: the Linen module.
      config: of the file it came from.
    """

    network: Network
    params: Params
    module: nn.Module
    config: dict[str, Any]


class Encoder(NamedTuple):
    """A published encoder of text or of pictures.

    Attributes:
      encode: (params, ids (B, L), mask (B, L) or None) or (params, normalised pixels NHWC) -> an
        `Encoding` of `diffjax.models.text`.
      params: float32, under our names.
      module: the Linen module.
      config: of the file it came from.
      logits: (params, ids, pixels) -> (pictures, texts), of CLIP's two towers; None elsewhere.
    """

    encode: Callable[..., Any]
    params: Params
    module: nn.Module
    config: dict[str, Any]
    logits: Callable[..., Array] | None = None


class Module(NamedTuple):
    """A published part that is neither of the others: a ControlNet, an adapter, a projection.

    Attributes:
      network: (params, *inputs) -> its output, NHWC.
      params: float32, under our names.
      module: the Linen module.
      config: of the file it came from.
    """

    network: Callable[..., Any]
    params: Params
    module: nn.Module
    config: dict[str, Any]


Loaded = Pretrained | PretrainedClassifier | Autoencoder | Encoder | Module
"""What `load` returns, by the architecture."""


class Architecture(NamedTuple):
    """A published architecture of one configuration.

    Attributes:
      module: our Linen module.
      inputs: arguments of its `__call__` as shapes (x, t, cond), for its parameters' shapes.
      names: the reference's tensors among our parameters.
      finish: (params, config) -> what `load` returns.
      fixed: the reference's tensors that are not trained, such as position tables; written
        with the weights and ignored when they are read.
      modern: a tensor's name in older files -> its name in `names`.
      ignored: names that some files hold and that say nothing new, such as tied copies.
    """

    module: nn.Module
    inputs: tuple
    names: Names
    finish: Callable[[Params, dict], Loaded]
    fixed: dict[str, np.ndarray] = {}  # noqa: RUF012
    modern: Callable[[str], str] = str
    ignored: frozenset[str] = frozenset()


def denoising(
    module: nn.Module,
    schedule: Schedule,
    parameterization: Parameterization,
    null_label: bool = False,
) -> Callable[[Params, dict], Pretrained]:
    """The `finish` of a network that denoises; `null_label` as in `Pretrained`."""

    def finish(params, config):
        network, sampling = as_network(module), sampling_of(config)
        return Pretrained(
            network, params, schedule, parameterization, module, config, sampling, null_label
        )

    return finish


def point(z: Array) -> tuple[Array, Array]:
    """(mean, logvar) of latents without a variance."""
    return z, jnp.full_like(z, -jnp.inf)


def encoding(
    module: nn.Module,
    moments: Callable[[Any], tuple[Array, Array]] = lambda both: both,
    **defaults: Any,
) -> Callable[[Params, dict], Autoencoder]:
    """The `finish` of an autoencoder.

    Args:
      module: with the methods `encode` and `decode`.
      moments: what `encode` returns -> (mean, logvar), such as `point`.
      **defaults: of its configuration.
    """

    def encode(params, x):
        return moments(module.apply({"params": params}, x, method="encode"))

    def decode(params, z, *kept):
        return module.apply({"params": params}, z, *kept, method="decode")

    return lambda params, config: Autoencoder(encode, decode, params, {**defaults, **config})


def shapes(architecture: Architecture) -> Params:
    """Our parameters' shapes, without memory."""
    key = jax.random.key(0)
    return jax.eval_shape(lambda *a: architecture.module.init(key, *a), *architecture.inputs)[
        "params"
    ]


def image_inputs(size: int, channels: int, cond: dict[str, tuple] | None = None) -> tuple:
    """Shapes of (x, t, cond) for a batch of one square image.

    Args:
      size: height and width.
      channels: of the image.
      cond: name to (shape after the batch axis, dtype), None where there is none.
    """
    of = jax.ShapeDtypeStruct
    cond = cond and {name: of((1, *shape), dtype) for name, (shape, dtype) in cond.items()}
    return of((1, size, size, channels), np.float32), of((1,), np.float32), cond


def known_arguments(config: dict, expected: dict[str, Any], where: str) -> dict[str, Any]:
    """The reference constructor's arguments: those given over their defaults.

    Args:
      config: of the file; entries that begin with "_", "architecture" and what diffusers' EMAModel
        adds are about the file.
      expected: the reference's arguments with their defaults.
      where: the reference's name, for the error.

    Raises:
      InputError: an argument that the reference does not have, with the nearest, or a value of
        another type.
    """
    from difflib import get_close_matches

    about = EMA | {"architecture", "architectures"}
    given = {k: v for k, v in config.items() if not k.startswith("_") and k not in about}
    for name in given.keys() - expected.keys():
        close = get_close_matches(name, expected, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(expected)}."
        raise InputError(f"config.json: {where} has no argument {name!r}{hint}")
    return expected | {name: typed(name, value, expected[name]) for name, value in given.items()}


def supported(config: dict, where: str, **values: tuple) -> None:
    """Refuse a setting of the reference that is not built here.

    Args:
      config: from `known_arguments`.
      where: the reference's name, for the error.
      **values: for each argument those of its values that are.

    Raises:
      InputError: names the argument, its value and what is possible.
    """
    for name, possible in values.items():
        if config[name] not in possible:
            listed = ", ".join(repr(value) for value in possible)
            raise InputError(
                f"config.json: {where} with {name} = {config[name]!r} is not supported; "
                f"expected {listed}."
            )
