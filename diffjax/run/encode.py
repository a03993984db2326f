"""Conditions encoded once, before a draw: each distinct prompt goes through its encoder once."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from diffjax import parallel
from diffjax.conditioning import Condition, Raw
from diffjax.experiment import Frozen, Model

ROWS = 8  # distinct prompts of one compiled call


def encode_once(
    model: Model, frozen: Frozen, raw: Raw, mesh: Mesh
) -> tuple[Model, Frozen, dict[str, np.ndarray]]:
    """The model with its conditions encoded already, and without the networks that did it.

    Args:
      model: whose conditions may need frozen networks.
      frozen: their parameters, by name.
      raw: the raw conditions of all samples.
      mesh: that the parameters are on.

    Returns:
      The model, what is left of `frozen`, and the encoded conditions in place of the raw ones.
    """
    conditions, arrays, gone = [], dict(raw), set()
    for condition in model.conditions:
        if not condition.own:
            conditions.append(condition)
            continue
        used = {name: frozen[name] for name in condition.own}
        done, found = encoded(condition, used, raw, mesh)
        names = {*condition.example, *(f"null_{name}" for name in condition.example)}
        arrays = {name: a for name, a in arrays.items() if name not in names} | found
        conditions.append(done)
        gone |= {*condition.own}
    left = {name: params for name, params in frozen.items() if name not in gone}
    loaders = {name: load for name, load in model.frozen.items() if name not in gone}
    return model._replace(conditions=tuple(conditions), frozen=loaders), left, arrays


def encoded(
    condition: Condition, frozen: Frozen, raw: Raw, mesh: Mesh
) -> tuple[Condition, dict[str, np.ndarray]]:
    """One condition as what it encodes to, and the encoded arrays of all samples."""
    encode = jax.jit(condition.encode, out_shardings=parallel.replicated(mesh))
    rows = {name: np.asarray(raw[name]) for name in condition.example}
    found = of_distinct(encode, frozen, rows)
    example = {k: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for k, a in found.items()}
    if condition.null is None:
        return Condition(example, None, condition.flags), found
    null = {name: raw.get(f"null_{name}") for name in condition.example}
    null = {k: condition.null[k][None] if a is None else a for k, a in null.items()}
    nulls = of_distinct(encode, frozen, null)
    done = Condition(example, {name: a[0] for name, a in nulls.items()}, condition.flags)
    num = len(next(iter(rows.values())))
    each = {f"null_{k}": np.broadcast_to(a, (num, *a.shape[1:])) for k, a in nulls.items()}
    return done, found | each


def of_distinct(encode, frozen: Frozen, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """encode(frozen, rows), called on the rows that differ and given to all.

    Args:
      encode: compiled.
      frozen: its parameters.
      rows: raw arrays (N, ...) by name.

    Returns:
      Encoded arrays (N, ...) on the host; one that all rows share takes the memory of one.
    """
    num = len(next(iter(rows.values())))
    of_row = [
        b"".join(np.ascontiguousarray(a[i]).tobytes() for a in rows.values()) for i in range(num)
    ]
    place = {row: i for i, row in enumerate(dict.fromkeys(of_row))}
    first = [of_row.index(row) for row in place]
    parts = []
    for start in range(0, len(first), ROWS):
        chosen = first[start : start + ROWS]
        padded = chosen + chosen[:1] * (min(ROWS, len(first)) - len(chosen))
        out = encode(frozen, {name: a[padded] for name, a in rows.items()})
        parts.append({name: np.asarray(a)[: len(chosen)] for name, a in out.items()})
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if len(first) == 1:
        return {name: np.broadcast_to(a, (num, *a.shape[1:])) for name, a in found.items()}
    index = [place[row] for row in of_row]
    return {name: a[index] for name, a in found.items()}
