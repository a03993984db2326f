"""Ways to train a LoRA: LoRA, rsLoRA, DoRA and LoRA-GA, each as three functions."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.lora import low_rank
from diffjax.lora.gradient import aligned_lora, since
from diffjax.lora.low_rank import Which, chosen, column_norms, layers, stacked
from diffjax.types import Params, PRNGKeyArray, PyTree


class Method(NamedTuple):
    """A way to train a LoRA.

    Attributes:
      init: (key, base, which, rank) -> what is trained, which changes nothing yet; it reads
        the base's shapes alone.
      scale: (alpha, rank) -> s.
      lora: (base, what is trained) -> the LoRA that `merge` takes.
      start: (gradient of the base, which, rank) -> what is trained, where it begins along that;
        None where it begins at `init`.
    """

    init: Callable[[PRNGKeyArray, Params, Which, int], PyTree]
    scale: Callable[[float, int], float]
    lora: Callable[[Params, PyTree], PyTree]
    start: Callable[[Params, Which, int], PyTree] | None = None


def by_rank(alpha: float, rank: int) -> float:
    """s = alpha / r: Hu et al. 2022, section 4.1."""
    return alpha / rank


def by_root(alpha: float, rank: int) -> float:
    """s = alpha / sqrt(r): Kalajdzievski 2023 (rsLoRA), Theorem 3.2."""
    return alpha / math.sqrt(rank)


def as_it_is(base: Params, trained: PyTree) -> PyTree:
    """What is trained is the LoRA."""
    return trained


def with_gains(key: PRNGKeyArray, base: Params, which: Which, rank: int) -> PyTree:
    """`low_rank.init` with the differences of DoRA's magnitudes to the base's, zeros."""
    kernels, flat = chosen(base, which), flatten_dict(low_rank.init(key, base, which, rank))
    for path, w in kernels.items():
        stack = stacked(path)
        shape = (*w.shape[:stack], w.shape[-1])
        flat[(*path, "magnitude")] = jnp.zeros(shape)
    return unflatten_dict(flat)


def with_magnitudes(base: Params, trained: PyTree) -> PyTree:
    """DoRA's magnitudes |W| + difference, so that they begin as the base's: Liu et al. 2024."""
    flat = flatten_dict(base)

    def whole(path, layer):
        norms = column_norms(flat[path], stacked(path))
        return {**layer, "magnitude": norms + layer["magnitude"]}

    return unflatten_dict({path: whole(path, layer) for path, layer in layers(trained).items()})


def with_start(key: PRNGKeyArray, base: Params, which: Which, rank: int) -> PyTree:
    """A LoRA and where it began, until `along` is known."""
    return twice(low_rank.init(key, base, which, rank))


def along(gradient: Params, which: Which, rank: int) -> PyTree:
    """A LoRA along the gradient, and where it began: `gradient.aligned_lora`."""
    return twice(aligned_lora(gradient, which, rank))


def twice(lora: PyTree) -> PyTree:
    """A LoRA that is where it began."""
    return {"lora": lora, "start": jax.tree.map(jnp.copy, lora)}


def since_start(base: Params, trained: PyTree) -> PyTree:
    """`gradient.since`, the start held constant."""
    return since(trained["lora"], jax.lax.stop_gradient(trained["start"]))


lora = Method(low_rank.init, by_rank, as_it_is)
"""Hu et al. 2022."""

rslora = Method(low_rank.init, by_root, as_it_is)
"""Kalajdzievski 2023."""

dora = Method(with_gains, by_rank, with_magnitudes)
"""Liu et al. 2024."""

lora_ga = Method(with_start, by_root, since_start, along)
"""Wang et al. 2024, with rsLoRA's scale, as they have it (section 3.3)."""
