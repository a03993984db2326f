"""A reference's tensors and our parameters: one table of names, read in both directions.

Every difference between the two is a name and a layout (PyTorch keeps the output axis
first), so that loading and saving are permutations and a round trip is bit-equal.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.errors import InputError
from diffjax.types import Params

Tensors = dict[str, np.ndarray]


class Layout(NamedTuple):
    """A permutation of a tensor's entries, and its inverse.

    Attributes:
      read: theirs -> ours.
      write: ours -> theirs.
    """

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


same = Layout(lambda w: w, lambda w: w)
"""Biases, scales of norms, embedding tables."""

dense = Layout(lambda w: w.T, lambda w: w.T)
"""(out, in) <-> (in, out)."""

scalar = Layout(lambda w: w.reshape(()), lambda w: w)
"""One number, which some files hold as a list of one."""

conv = Layout(lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1))
"""(out, in, h, w) <-> (h, w, in, out)."""

conv_1x1 = Layout(lambda w: w[:, :, 0, 0].T, lambda w: w.T[:, :, None, None])
"""A (1, 1) convolution (out, in, 1, 1) <-> a dense layer (in, out)."""

conv_1d = Layout(lambda w: w[:, :, 0].T, lambda w: w.T[:, :, None])
"""A width-1 convolution (out, in, 1) <-> a dense layer (in, out)."""


def outputs_reordered(layout: Layout, order: np.ndarray) -> Layout:
    """A layout whose output channel i is the reference's channel order[i]."""
    back = np.argsort(order)
    return Layout(lambda w: layout.read(w[order]), lambda w: layout.write(w)[back])


def inputs_reordered(layout: Layout, order: np.ndarray) -> Layout:
    """A layout whose input channel i is the reference's channel order[i]."""
    back = np.argsort(order)
    return Layout(lambda w: layout.read(w[:, order]), lambda w: layout.write(w)[:, back])


class Entry(NamedTuple):
    """Where a reference's tensor is among our parameters.

    Attributes:
      path: of our leaf, from the root of `params`.
      layout: how the two differ.
      piece: (i, n) where the tensor is the i-th of n equal pieces of our last axis, such as
        the query of a fused query-key-value layer.
    """

    path: tuple[str, ...]
    layout: Layout = same
    piece: tuple[int, int] = (0, 1)


Names = dict[str, Entry]


class Leaf:
    """A parameter that is read where it becomes an array, by `np.asarray`, and not before.

    A tree of them is weights that take no memory: placed leaf by leaf, no two copies exist.

    Attributes:
      shape: of the array.
      dtype: of the array; float32 where it is not said.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        read: Callable[[], np.ndarray],
        dtype: np.dtype = np.dtype(np.float32),  # noqa: B008
    ):
        self.shape, self._read, self.dtype = shape, read, dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self._read()
        return found if dtype is None else found.astype(dtype, copy=False)


def to_leaves(tensors: Mapping[str, Any], names: Names, like: Params) -> Params:
    """The parameters that a reference's tensors are, each read where it is asked for.

    Args:
      tensors: the reference's, by its names; arrays or `Leaf`s.
      names: where each of them belongs.
      like: our parameters as shapes.

    Returns:
      A tree of `Leaf`s with the shapes of `like`.

    Raises:
      InputError: a tensor is missing, too many, or misshapen; names it and the nearest name.
    """
    check(tensors, names, like)
    pieces: dict[tuple, dict] = {path: {} for path in flatten_dict(like)}
    for name, entry in names.items():
        pieces[entry.path][entry.piece[0]] = (tensors[name], entry.layout)

    def leaf(path, shape):
        def read():
            parts = pieces[path].items()
            return _join({i: to.read(np.asarray(w, np.float32)) for i, (w, to) in parts})

        return Leaf(shape, read)

    return unflatten_dict({path: leaf(path, s.shape) for path, s in flatten_dict(like).items()})


def to_params(tensors: Mapping[str, Any], names: Names, like: Params) -> Params:
    """`to_leaves`, all of them read: float32 on the host. Arguments and errors are the same."""
    return jax.tree.map(np.asarray, to_leaves(tensors, names, like))


def to_tensors(params: Params, names: Names) -> Tensors:
    """Our parameters under the reference's names and layouts: the inverse of `to_params`."""
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(params).items()}
    return {
        name: np.asarray(entry.layout.write(_piece(flat[entry.path], entry)), order="C")
        for name, entry in names.items()
    }


def expected_shapes(names: Names, like: Params) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the reference, from our shapes alone."""
    flat = flatten_dict(like)

    def shape(entry):
        leaf = np.broadcast_to(np.float32(0), flat[entry.path].shape)  # takes no memory
        return entry.layout.write(_piece(leaf, entry)).shape

    return {name: shape(entry) for name, entry in names.items()}


def _join(parts: dict[int, np.ndarray]) -> np.ndarray:
    """The whole of which `_piece` are the parts; a scalar stays one."""
    if len(parts) == 1:
        return np.asarray(parts[0], order="C")
    return np.ascontiguousarray(np.concatenate([parts[i] for i in sorted(parts)], axis=-1))


def _piece(leaf: np.ndarray, entry: Entry) -> np.ndarray:
    i, n = entry.piece
    if n == 1:
        return leaf
    width = leaf.shape[-1] // n
    return leaf[..., i * width : (i + 1) * width]


def check(tensors: Mapping[str, Any], names: Names, like: Params) -> None:
    """Refuse tensors that are not those of the table. Arguments and errors of `to_params`."""
    unfilled = flatten_dict(like).keys() - {entry.path for entry in names.values()}
    if unfilled:  # a converter that does not fit its module, never the user's file
        raise AssertionError(f"no tensor is named for {sorted(unfilled)[:3]}")
    missing, extra = sorted(names.keys() - tensors.keys()), sorted(tensors.keys() - names.keys())
    if missing:
        raise InputError(
            f"the weights lack {len(missing)} of {len(names)} tensors, first {missing[0]!r}"
            f"{_nearest(missing[0], extra or tensors, 'the file has')}; give the file of the "
            "architecture that config.json describes."
        )
    if extra:
        raise InputError(
            f"the weights have {len(extra)} tensors that the network does not, first {extra[0]!r}"
            f"{_nearest(extra[0], names, 'the nearest expected name is')}; does config.json "
            "describe this file?"
        )
    for name, shape in expected_shapes(names, like).items():
        if tuple(tensors[name].shape) not in {shape, (1,) if shape == () else shape}:
            raise InputError(
                f"tensor {name!r}: expected shape {shape}, got {tuple(tensors[name].shape)}; "
                "does config.json describe this file?"
            )


def _nearest(name: str, known: Iterable[str], words: str) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" ({words} {close[0]!r})" if close else ""


def count(like: Params) -> int:
    """Number of parameters, from arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(like))
