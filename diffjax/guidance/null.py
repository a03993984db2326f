"""The null value of a condition: what stands in its place when nothing is asked for."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffjax.errors import InputError
from diffjax.types import Cond, PyTree

Nulls = Mapping[str, Any]
"""Null value of each condition, without the batch axis; None or absent: it has none.

A name that is no entry of the batch stands for several: {"text": {"tokens": ..., "token_mask":
...}} are the nulls of the entries "tokens" and "token_mask"."""


def entries(nulls: Nulls, batch: Mapping[str, PyTree]) -> dict[str, dict[str, PyTree]]:
    """The null values by condition and then by entry of the batch; without those that are None."""
    return {
        name: {k: v for k, v in null.items() if v is not None}
        if name not in batch and isinstance(null, Mapping)
        else {name: null}
        for name, null in nulls.items()
        if null is not None
    }


def null_like(name: str, null: PyTree, value: PyTree) -> PyTree:
    """A null value broadcast to the shape of a batch of its condition.

    Args:
      name: of the entry, for messages.
      null: a number or an array that broadcasts to one sample, such as a label or token
        embeddings (L, D); a pytree of them where the entry is a pytree.
      value: the entry of a batch, a pytree of arrays (B, ...).

    Returns:
      A pytree of the shapes and types of `value`.

    Raises:
      InputError: the null is another pytree, or does not broadcast.
    """

    def fill(v, n):
        return jnp.broadcast_to(jnp.asarray(n, jnp.result_type(v)), jnp.shape(v))

    try:
        return jax.tree.map(fill, value, null)
    except (TypeError, ValueError) as error:
        expected, got = (jax.tree.map(jnp.shape, tree) for tree in (value, null))
        raise InputError(
            f"the null value of {name!r} must broadcast to the condition, of shape {expected} "
            f"with the batch first; got {got}. Give one null value for each of its arrays."
        ) from error


def without(nulls: Nulls, cond: Cond) -> Cond:
    """The conditions with each that has a null value replaced by it, and the others kept.

    Args:
      nulls: the null values; those of conditions that are not given are not looked at.
      cond: the conditions.

    Returns:
      Conditions of the names, shapes and types of `cond`.

    Raises:
      InputError: no condition is given or none of them has a null value, or one does not
        broadcast.
    """
    cond = cond or {}
    flat = {k: v for group in entries(nulls, cond).values() for k, v in group.items()}
    names = sorted(flat.keys() & cond.keys())
    if not names:
        raise InputError(
            f"classifier-free guidance needs a condition with a null value, such as "
            f"{', '.join(sorted(flat)) or 'none'}; got the conditions: "
            f"{', '.join(sorted(cond)) or 'none'}. Give one with a null value, or do not guide."
        )
    return cond | {name: null_like(name, flat[name], cond[name]) for name in names}
