"""LoRA: kernels changed by products of two thin matrices, W + s A B (Hu et al. 2022).

Kernels are Linen's, with the output axis last: the transpose of the paper's W + s B A.
A LoRA is a tree like the parameters, with {"a", "b"} in place of each kernel that it changes,
"magnitude" beside them where it is DoRA's, and "alpha" where it is a file's; other leaves are left
out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.errors import InputError
from diffjax.models.stacking import is_run
from diffjax.types import Array, Params, PRNGKeyArray, PyTree

Path = tuple[str, ...]
Which = Callable[[Path, tuple[int, ...]], bool]
"""(path of a leaf, its shape) -> whether it is changed."""

Layer = Mapping[str, Any]
"""a (..., r) with the axes of the kernel but the last, b (r, out), perhaps magnitude (out,) and
alpha (), which scales the layer by alpha / r.

Of a kernel of several blocks, stacked along its first axis, b, magnitude and alpha are too."""


def stacked(path: Path) -> int:
    """Number of leading axes along which a leaf holds those of several blocks."""
    return sum(is_run(name) for name in path)


def dense(path: Path, shape: tuple[int, ...]) -> bool:
    """Kernels of dense layers."""
    return path[-1] == "kernel" and len(shape) - stacked(path) == 2


def dense_and_conv(path: Path, shape: tuple[int, ...]) -> bool:
    """Kernels of dense layers and of convolutions."""
    return path[-1] == "kernel"


def attention(path: Path, shape: tuple[int, ...]) -> bool:
    """Kernels of dense layers within attention."""
    parts = ("attn", "attention", "attend", "to_q", "to_k", "to_v", "to_out", "qkv")
    return dense(path, shape) and any(part in name for name in path for part in parts)


def chosen(params: Params, which: Which) -> dict[Path, Any]:
    """The kernels that a LoRA changes, by path.

    Args:
      params: arrays or shapes.
      which: says of each leaf whether it is one.

    Raises:
      InputError: there is none.
    """
    found = {path: w for path, w in flatten_dict(params).items() if which(path, tuple(w.shape))}
    if not found:
        raise InputError(
            "the network has no kernel that the LoRA was asked to change; ask for other layers, "
            "such as dense or all."
        )
    return found


def init(key: PRNGKeyArray, params: Params, which: Which, rank: int) -> PyTree:
    """A LoRA that changes nothing yet: a uniform within 1 / sqrt(in), b zero.

    Hu et al. 2022, section 4.1, with the bounds of their code.

    Args:
      key: of a.
      params: arrays or shapes.
      which: leaves that are changed.
      rank: r, from 1.

    Returns:
      The LoRA.

    Raises:
      InputError: the rank is not from 1, or no leaf is one of these.
    """
    if rank < 1:
        raise InputError(f"expected a rank from 1; got {rank}.")
    kernels = chosen(params, which)
    keys = jax.random.split(key, len(kernels))

    def layer(key, path, shape):
        stack = shape[: stacked(path)]
        fan_in = jnp.prod(jnp.array(shape[len(stack) : -1]))
        a = jax.random.uniform(key, (*shape[:-1], rank), minval=-1, maxval=1) / jnp.sqrt(fan_in)
        return {"a": a, "b": jnp.zeros((*stack, rank, shape[-1]))}

    pairs = zip(keys, kernels.items(), strict=True)
    return unflatten_dict({path: layer(k, path, tuple(w.shape)) for k, (path, w) in pairs})


def layers(lora: PyTree) -> dict[Path, Layer]:
    """The layers of a LoRA by the path of the kernel that each changes."""
    found: dict[Path, dict] = {}
    for path, leaf in flatten_dict(lora).items():
        found.setdefault(path[:-1], {})[path[-1]] = leaf
    return found


def own_scale(layer: Layer) -> Array:
    """alpha / r of a layer with an alpha, else 1: () or one for each block of a scan."""
    rank = layer["a"].shape[-1]
    return jnp.asarray(layer.get("alpha", rank)) / rank


def product(layer: Layer) -> Array:
    """A B, with the axes of the kernel."""
    a, b = jnp.asarray(layer["a"]), jnp.asarray(layer["b"])
    flat = a.reshape(*b.shape[:-2], -1, a.shape[-1])
    change = jnp.matmul(flat, b, precision=jax.lax.Precision.HIGHEST)
    return change.reshape(*a.shape[:-1], b.shape[-1])


def merged(kernel: Any, layer: Layer, scale: Any) -> Array:
    """W + s A B (Hu et al. 2022, Eq. 3), its columns scaled to their magnitudes if there are any.

    Args:
      kernel: W (..., out).
      layer: of that kernel.
      scale: s.

    Returns:
      (..., out), of the kernel's type.
    """
    kernel, own = jnp.asarray(kernel), own_scale(layer)
    own = own.reshape(*own.shape, *(1,) * (kernel.ndim - own.ndim))
    changed = kernel + (scale * own * product(layer)).astype(kernel.dtype)
    if "magnitude" not in layer:
        return changed
    return with_magnitude(changed, jnp.asarray(layer["magnitude"])).astype(kernel.dtype)


def column_norms(kernel: Any, stack: int) -> Array:
    """The norm of each output's column: (stack..., ..., out) -> (stack..., out)."""
    flat = jnp.asarray(kernel).reshape(*kernel.shape[:stack], -1, kernel.shape[-1])
    return jnp.linalg.norm(flat, axis=-2)


def with_magnitude(kernel: Array, magnitude: Array) -> Array:
    """m W / |W| by columns: Liu et al. 2024 (DoRA), Eq. 5, the norm held constant (section 4.3).

    Args:
      kernel: W (stack..., ..., out).
      magnitude: m (stack..., out).

    Returns:
      The kernel whose columns have these norms; columns of zeros have no direction and stay.
    """
    stack = magnitude.ndim - 1
    norm = jax.lax.stop_gradient(column_norms(kernel, stack))
    ratio = jnp.where(norm > 0, magnitude / jnp.where(norm > 0, norm, 1), 1)
    middle = (1,) * (kernel.ndim - magnitude.ndim)
    return kernel * ratio.reshape(*ratio.shape[:-1], *middle, ratio.shape[-1])


def check_fits(params: Params, lora: PyTree, what: str = "the LoRA") -> None:
    """Refuse a LoRA of another network.

    Args:
      params: arrays or shapes.
      lora: arrays or shapes.
      what: it is called.

    Raises:
      InputError: names the first layer that the network lacks, or has in another shape.
    """
    flat = flatten_dict(params)
    for path, layer in layers(lora).items():
        name = "/".join(path)
        if path not in flat:
            raise InputError(f"{what} changes {name}, which this network does not have.")
        a, b, shape = layer["a"].shape, layer["b"].shape, tuple(flat[path].shape)
        if (*a[:-1], b[-1]) != shape or a[-1] != b[-2]:
            raise InputError(
                f"{what} changes {name} by matrices {tuple(a)} and {tuple(b)}; this network's is "
                f"{shape}. It is of another base."
            )


def merge(params: Params, lora: PyTree, scale: Any = 1.0) -> Params:
    """The parameters with `merged` kernels; those that the LoRA does not name are as they were.

    Args:
      params: of the base.
      lora: see above.
      scale: s; several LoRAs are merged one after the other.

    Returns:
      The parameters.

    Raises:
      InputError: as `check_fits`.
    """
    check_fits(params, lora)
    flat = flatten_dict(params)
    changed = {path: merged(flat[path], layer, scale) for path, layer in layers(lora).items()}
    return unflatten_dict(flat | changed)
