"""LoRA-GA: a LoRA that begins along the gradient of full fine-tuning (Wang et al. 2024)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from diffjax.lora.low_rank import Layer, Which, chosen, layers, stacked
from diffjax.types import Array, Params, PyTree


def aligned(gradient: Array, rank: int, gamma: Any = 16.0) -> Layer:
    """Matrices along the 2r largest singular directions of a gradient: Wang et al. 2024, Eq. 14.

    G = V S U' (Linen's, in by out), A = c V[:, :r], B = c U[:, r:2r]' and
    c = out^(1/4) / sqrt(gamma). W - s A B takes the place of W. The first step of gradient descent
    on A and B then changes the kernel by c^2 s^2 times the best approximation of G of rank 2r.
    Directions that G does not have are zeros.

    Args:
      gradient: G (in, out).
      rank: r, from 1.
      gamma: larger is a smaller beginning.

    Returns:
      {"a": (in, r), "b": (r, out)}.
    """
    v, _, ut = jnp.linalg.svd(gradient, full_matrices=False)
    more = max(0, 2 * rank - ut.shape[0])
    v, ut = jnp.pad(v, ((0, 0), (0, more))), jnp.pad(ut, ((0, more), (0, 0)))
    c = gradient.shape[1] ** 0.25 / gamma**0.5
    return {"a": c * v[:, :rank], "b": c * ut[rank : 2 * rank]}


def aligned_lora(gradient: Params, which: Which, rank: int, gamma: Any = 16.0) -> PyTree:
    """`aligned` of every kernel that is chosen; a convolution is the matrix from its window.

    Args:
      gradient: of a loss, as the parameters.
      which: leaves that are changed.
      rank: r.
      gamma: as for `aligned`.

    Returns:
      The LoRA.
    """

    def layer(path, g):
        stack, of = stacked(path), partial(aligned, rank=rank, gamma=gamma)
        for _ in range(stack):
            of = jax.vmap(of)
        found = of(g.reshape(*g.shape[:stack], -1, g.shape[-1]))
        return {"a": found["a"].reshape(*g.shape[:-1], rank), "b": found["b"]}

    return unflatten_dict({p: layer(p, g) for p, g in chosen(gradient, which).items()})


def since(lora: PyTree, start: PyTree) -> PyTree:
    """A LoRA of twice the rank that changes the base by A B - A0 B0, and not at all at the start.

    So the base shifted by -s A0 B0 (Wang et al. 2024, Eq. 13) need not be kept.

    Args:
      lora: A and B.
      start: A0 and B0.

    Returns:
      [A, A0] and [B; -B0].
    """

    def both(one, other):
        a = jnp.concatenate([one["a"], other["a"]], -1)
        return {"a": a, "b": jnp.concatenate([one["b"], -other["b"]], -2)}

    first = layers(start)
    return unflatten_dict({path: both(layer, first[path]) for path, layer in layers(lora).items()})
