"""A ControlNet on the frozen network of another run."""

from collections.abc import Callable, Mapping

import jax
from flax import linen as nn

from diffjax.conditioning import Condition
from diffjax.errors import InputError
from diffjax.experiment import Model
from diffjax.models import Patched, network
from diffjax.models.controlnet import controlled, controlnet_for, from_zero, upon
from diffjax.parameterization import make_denoiser
from diffjax.recipe.model import first_inputs
from diffjax.types import LossFn, Network, Parameterization, Params


def controlnet_model(
    base: Model,
    load: Callable[[], Params],
    module: nn.Module,
    parameterization: Parameterization,
    picture: Condition,
    hint: tuple[int, ...] = (16, 32, 32),
) -> tuple[Model, Network]:
    """The base's model with a ControlNet (Zhang et al. 2023), whose parameters alone are trained.

    They are the differences to the copied layers of the base, so that they begin without it. The
    base stands in the model's `frozen`.

    Args:
      base: a model trained before.
      load: () -> its parameters.
      module: its network, a U-Net or a `Patched` one.
      parameterization: what that predicts.
      picture: a condition that is encoded as "image".
      hint: widths of the layers that read the picture, see `ControlNet`.

    Returns:
      (the model, the network of `model.whole(params, frozen)`).
    """
    patched = isinstance(module, Patched)
    unet, patch = (module.network, module.size) if patched else (module, 1)
    control = controlnet_for(unet, hint=hint, patch=patch)
    trunk = (lambda params: params["network"]) if patched else (lambda params: params)
    net = controlled(network(module), network(control))
    conditions = (*base.conditions, picture)

    def shapes():
        inputs = first_inputs(base.example.shape, base.conditions, base.frozen)
        return jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]

    def checked():
        params, like = load(), shapes()
        sizes = lambda tree: jax.tree.map(lambda leaf: tuple(leaf.shape), tree)  # noqa: E731
        if sizes(params) != sizes(like):
            raise InputError(
                "the base's parameters are not those of the network that the ControlNet is for; "
                "give the flags of the U-Net that the base was trained with."
            )
        return params

    def init(key):
        inputs = first_inputs(base.example.shape, conditions, base.frozen)
        return from_zero(control.init(key, *inputs)["params"], trunk(shapes()))

    def whole(params, frozen):
        return {"base": frozen["base"], "control": upon(params, trunk(frozen["base"]))}

    def denoiser(params):
        return make_denoiser(net, params, base.schedule, parameterization)

    frozen = {**base.frozen, "base": checked}
    changed = {"init": init, "whole": whole, "denoiser": denoiser}
    return base._replace(conditions=conditions, frozen=frozen, **changed), net


def on_whole(loss: LossFn, model: Model, frozen: Mapping) -> LossFn:
    """A loss of the whole parameters as one of those that are trained, see `Model.whole`."""
    return lambda params, *args, **context: loss(model.whole(params, frozen), *args, **context)
