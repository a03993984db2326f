"""Published classifiers in inference: batch norms folded into the convolutions before them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from diffjax.pretrained.naming import Entry, conv, dense, same, to_params
from diffjax.types import Params

EPSILON = 1e-3
"""That TensorFlow's batch norms add to the variance."""


def fold(weight: np.ndarray, norm: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of norm(conv(x)): w g / sqrt(v + 1e-3) and b - m g / sqrt(v + 1e-3).

    Args:
      weight: (out, in, h, w).
      norm: `weight` g, `bias` b, `running_mean` m and `running_var` v, (out,) each.

    Returns:
      The folded weight and bias, float32.
    """
    weight, g, b, m, v = (
        np.asarray(a, np.float64)
        for a in (weight, *(norm[k] for k in ("weight", "bias", "running_mean", "running_var")))
    )
    scale = g / np.sqrt(v + EPSILON)
    return (weight * scale[:, None, None, None]).astype(np.float32), np.float32(b - m * scale)


def folded_params(
    tensors: Mapping[str, np.ndarray], norms: Mapping[str, str], module: nn.Module, x: Any
) -> Params:
    """Parameters of a network of biased convolutions from one with batch norms.

    Args:
      tensors: of the published file; entries `num_batches_tracked` are ignored.
      norms: name of each convolution to the name of the norm after it.
      module: whose leaves are kernel and bias under the convolution's name, split at dots.
      x: an example of its input, or its shape.

    Returns:
      Parameters of the module.

    Raises:
      InputError: a tensor is missing, too many or misshapen.
    """
    left = {k: w for k, w in tensors.items() if not k.endswith("num_batches_tracked")}
    folded = {}
    for layer, norm in norms.items():
        parts = ("weight", "bias", "running_mean", "running_var")
        if f"{layer}.weight" in left and all(f"{norm}.{part}" in left for part in parts):
            of_norm = {part: left.pop(f"{norm}.{part}") for part in parts}
            weight, bias = fold(left.pop(f"{layer}.weight"), of_norm)
            folded |= {f"{layer}.weight": weight, f"{layer}.bias": bias}
    like = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    names = {}
    for path, leaf in flatten_dict(like).items():
        layer = ".".join(path[:-1])
        layer = next((name for name in norms if _path(name) == path[:-1]), layer)
        kernel = conv if leaf.ndim == 4 else dense
        names[f"{layer}.{'weight' if path[-1] == 'kernel' else 'bias'}"] = Entry(
            path, kernel if path[-1] == "kernel" else same
        )
    return to_params(left | folded, names, like)


def _path(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split(".") if part != "conv")
