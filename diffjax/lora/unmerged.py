"""A LoRA beside the layers that it changes, which stay as they are: y = x W + s (x A) B."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.lora.low_rank import Layer, check_fits, layers, own_scale
from diffjax.models.network import network
from diffjax.types import Array, Network


def unmerged(module: nn.Module, scale: Any = 1.0) -> Network:
    """A network of {"base", "lora"}, which adds the LoRA to the output of each layer.

    Its gradient with respect to the LoRA forms no gradient of a whole kernel. Several LoRAs, or
    one for each sample, need no copy of the base.

    Args:
      module: of `__call__(x, t, cond, train)`, of dense layers and convolutions of Linen.
      scale: s.

    Returns:
      The network.
    """

    def apply(params, *inputs):
        check_fits(params["base"], params["lora"])
        left = layers(params["lora"])

        def beside(call, args, kwargs, context):
            path = (*context.module.path, "kernel")
            y = call(*args, **kwargs)
            if context.method_name != "__call__" or path not in left:
                return y
            layer = {name: jnp.asarray(leaf, y.dtype) for name, leaf in left[path].items()}
            seen.add(path)
            change = through(context.module, args[0], layer)
            return y + jnp.asarray(scale * own_scale(layer), y.dtype) * change

        seen: set = set()
        with nn.intercept_methods(beside):
            out = network(module)(params["base"], *inputs)  # made here: a trace is kept with it
        missed = sorted("/".join(path) for path in left.keys() - seen)
        if missed:
            raise InputError(f"the network does not call the layer of {missed[0]}; use lora.merge.")
        return out

    return apply


def through(module: nn.Module, x: Array, layer: Layer) -> Array:
    """(x A) B of a dense layer or a convolution, whose A has the layer's own window.

    Raises:
      InputError: the layer is neither, a convolution in groups, stacked by `nn.scan`, or DoRA's.
    """
    grouped = getattr(module, "feature_group_count", 1) != 1
    plain = isinstance(module, nn.Dense | nn.Conv) and not grouped
    if "magnitude" in layer or layer["b"].ndim != 2 or not plain:
        raise InputError(
            "beside its layer stands only a LoRA of a dense layer or of a convolution that is "
            "neither in groups nor in a scan, and no DoRA; use lora.merge."
        )
    x = x.astype(layer["a"].dtype)
    if isinstance(module, nn.Dense):
        return x @ layer["a"] @ layer["b"]
    narrow = module.clone(features=layer["a"].shape[-1], use_bias=False, parent=None, name=None)
    return narrow.apply({"params": {"kernel": layer["a"]}}, x) @ layer["b"]
