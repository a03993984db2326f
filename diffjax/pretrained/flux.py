"""FLUX.1's transformer, as diffusers' FluxTransformer2DModel has it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.models import network as as_network
from diffjax.models.flux import Flux, FluxControlNet
from diffjax.parameterization import predict_velocity
from diffjax.pretrained.architecture import (
    Architecture,
    Module,
    denoising,
    known_arguments,
    supported,
)
from diffjax.pretrained.own_names import own_names
from diffjax.pretrained.scheduler import Noise, noise_of
from diffjax.schedules import rectified_flow
from diffjax.types import Array, Coefficients, Schedule

DEFAULTS = {
    "patch_size": 1,
    "in_channels": 64,
    "out_channels": None,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": False,
    "axes_dims_rope": (16, 56, 56),
}


def velocity(schedule: Schedule, t: Array) -> Coefficients:
    """The velocity of the straight line, by a network that is given x_t as it is and t."""
    return predict_velocity(schedule, t)._replace(c_in=jnp.ones_like(t), c_noise=t)


def line() -> Noise:
    """What FLUX was trained with."""
    return rectified_flow(), velocity


def flux_transformer(config: dict) -> Architecture:
    """diffusers' FluxTransformer2DModel, by its config.json.

    It transforms packed latents (B, T, in_channels): 2x2 pixels as one token.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, DEFAULTS, "FluxTransformer2DModel")
    module, inputs = _module(Flux, c, "FluxTransformer2DModel")
    finish = denoising(module, *noise_of(config, line, line))
    return Architecture(module, inputs, own_names(module, inputs), finish)


def flux_controlnet(config: dict) -> Architecture:
    """diffusers' FluxControlNetModel, by its config.json.

    Its network takes what the transformer takes, and tokens of the picture's latents as
    cond["image"]; it returns the transformer's cond["residuals"].

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here, such as
        the modes of a union of ControlNets.
    """
    where = "FluxControlNetModel"
    own = {"num_mode": None, "conditioning_embedding_channels": None}
    c = known_arguments(config, DEFAULTS | own, where)
    supported(c, where, num_mode=(None,), conditioning_embedding_channels=(None,))
    module, inputs = _module(FluxControlNet, c, where)
    inputs[2]["image"] = inputs[0]

    def finish(params, config):
        return Module(as_network(module), params, module, config)

    return Architecture(module, inputs, own_names(module, inputs), finish)


def _module(make: Callable[..., Flux], c: dict, where: str) -> tuple[Flux, tuple]:
    """The module and the shapes of its inputs."""
    supported(c, where, patch_size=(1,))
    axes = tuple(c["axes_dims_rope"])
    if sum(axes) != c["attention_head_dim"] or any(width % 2 for width in axes):
        raise InputError(
            "config.json: expected axes_dims_rope to be even numbers with the sum "
            f"attention_head_dim = {c['attention_head_dim']}; got {list(axes)}."
        )
    module = make(
        heads=c["num_attention_heads"],
        head_width=c["attention_head_dim"],
        depth=c["num_layers"],
        single_depth=c["num_single_layers"],
        channels=c["out_channels"] or c["in_channels"],
        axes=axes,
        guided=c["guidance_embeds"],
    )
    of = lambda *shape: jax.ShapeDtypeStruct((1, *shape), np.float32)  # noqa: E731
    cond = {"tokens": of(1, c["joint_attention_dim"]), "vector": of(c["pooled_projection_dim"])}
    cond |= {"guidance": of()} if module.guided else {}
    return module, (of(1, c["in_channels"]), of(), cond)
