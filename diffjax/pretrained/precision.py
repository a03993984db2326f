"""The type of a system's weights and of its computation: float32, or bfloat16 where it is enough.

In bfloat16 the weights of every part and the computation of the denoiser and of the text encoders
are bfloat16. Norms, softmax, the denoiser's output, the scheduler's arithmetic and what the
autoencoder computes are float32.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.models import UNet
from diffjax.models import network as as_network
from diffjax.models.layers import Dtype
from diffjax.models.mmdit import MMDiT
from diffjax.pretrained.naming import Leaf
from diffjax.pretrained.pipeline import Part
from diffjax.types import Params

READ = ("tokens", "image_tokens")
"""Conditions that a network reads in its own type; the others are numbers, one for each image."""


def known(dtype: Dtype) -> np.dtype:
    """The type itself.

    Raises:
      InputError: it is neither float32 nor bfloat16.
    """
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        raise InputError(f"a system computes in float32 or bfloat16; got {dtype}.")
    return jnp.dtype(dtype)


def computing(part: Part, dtype: Dtype) -> Part:
    """A U-Net, a transformer or a ControlNet that computes in a type.

    Args:
      part: the network; its parameters stay as they are, see `stored`.
      dtype: float32 or bfloat16.
    """
    if dtype == jnp.float32:
        return part
    module: Any = part.network.module
    if isinstance(module, UNet):
        module = module.clone(style=module.style._replace(dtype=dtype))
    elif isinstance(module, MMDiT):
        module = module.clone(dtype=dtype)
    inner = as_network(module)

    def network(params, x, t, cond, key):
        own = {k: v.astype(dtype) if k in READ else v for k, v in (cond or {}).items()}
        return inner(params, x.astype(dtype), t, own or None, key)

    return part._replace(network=part.network._replace(network=network, module=module))


def stored(leaves: Callable[[], Params], dtype: Dtype) -> Callable[[], Params]:
    """The parameters rounded to a type, each where it is read.

    Args:
      leaves: () -> a tree of `naming.Leaf`s or arrays, float32.
      dtype: of the result.
    """
    if dtype == jnp.float32:
        return leaves

    def leaf(found):
        return Leaf(found.shape, lambda: np.asarray(found).astype(dtype), np.dtype(dtype))

    return lambda: jax.tree.map(leaf, leaves())
