"""LoRA+: B learns faster than A (Hayou et al. 2024)."""

import jax
import optax

from diffjax.types import PyTree


def of_b(tree: PyTree) -> PyTree:
    """Whether each leaf is a B of a LoRA, as a mask for Optax."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[-1].key == "b", tree)


def lora_plus(
    optimizer: optax.GradientTransformation, ratio: float
) -> optax.GradientTransformation:
    """An optimizer whose learning rate of B is `ratio` times that of A: Hayou et al. 2024, Eq. 9.

    Args:
      optimizer: with its learning rate inside.
      ratio: lambda; 1 is the optimizer itself, and the paper's advice is about 16.

    Returns:
      The optimizer.
    """
    return optax.chain(optimizer, optax.masked(optax.scale(ratio), of_b))
