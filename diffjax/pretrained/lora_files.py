"""LoRA files from and to a LoRA of ours: the forms of diffusers (PEFT) and of kohya.

A network that was trained here names its layers by our own names, joined by dots; a published one
by its reference's. Matrices are written as they are, so that a round trip is bit-equal.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.errors import InputError
from diffjax.lora import layers
from diffjax.models.stacking import RUN
from diffjax.pretrained.lora import (
    Change,
    changes_of,
    check_change,
    factor_of,
    lora_file,
    metadata_of,
    targets_of,
)
from diffjax.pretrained.naming import Entry, Names, Tensors
from diffjax.pretrained.own_names import layout_of
from diffjax.pretrained.tensors import read_metadata, read_tensors
from diffjax.types import Params, PyTree

BASE = "diffjax.base"
"""Metadata: the fingerprint of the base that a LoRA was trained on."""


def own_layers(params: Params) -> Names:
    """The kernels of a network of ours by its own names, of no block in a scan.

    Args:
      params: arrays or shapes, from `unstack_blocks`.
    """
    flat = flatten_dict(params)
    kernels = {path: w.shape for path, w in flat.items() if path[-1] == "kernel"}
    return {
        ".".join((*path[:-1], "weight")): Entry(path, layout_of(path, shape))
        for path, shape in kernels.items()
    }


def orders(entry: Entry, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, tuple]:
    """How a reference's kernel is ours: the order of inputs, that of outputs, and its shape.

    Args:
      entry: of the kernel.
      shape: of our whole kernel (..., out), whose piece the reference's is.
    """
    *window, out = shape
    width = out // entry.piece[1]
    index = np.arange(int(np.prod(window)) * width).reshape(*window, width)
    theirs = entry.layout.write(index)
    flat = theirs.reshape(theirs.shape[0], -1)
    return flat[0] // width, flat[:, 0] % width, theirs.shape


def pieces_of(layer: Mapping[str, Any], entry: Entry, shape: tuple[int, ...]) -> Change:
    """A layer of ours as the reference's matrices A (r, in...) and B (out, r...)."""
    inputs, outputs, theirs = orders(entry, shape)
    i, width = entry.piece[0], len(outputs)
    a, b = np.asarray(layer["a"]), np.asarray(layer["b"])[:, i * width : (i + 1) * width]
    rank, ones = a.shape[-1], (1,) * (len(theirs) - 2)
    down = a.reshape(-1, rank)[inputs].T.reshape(rank, *theirs[1:])
    up = b[:, outputs].T.reshape(-1, rank, *ones)
    magnitude = layer.get("magnitude")
    if magnitude is not None:
        magnitude = np.asarray(magnitude)[i * width : (i + 1) * width][outputs]
    return Change(down, up, np.float32(layer.get("alpha", rank)), magnitude)


def layer_of(change: Change, entry: Entry, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The inverse of `pieces_of`, of one piece: {"a", "b", "alpha"} and perhaps "magnitude"."""
    inputs, outputs, _ = orders(entry, shape)
    rank = change.down.shape[0]
    a = np.empty((len(inputs), rank), np.float32)
    b = np.empty((rank, len(outputs)), np.float32)
    a[inputs], b[:, outputs] = change.down.reshape(rank, -1).T, change.up.reshape(-1, rank).T
    found = {"a": a.reshape(*shape[:-1], rank), "b": b, "alpha": np.float32(change.alpha)}
    if change.magnitude is not None:
        found["magnitude"] = np.empty(len(outputs), np.float32)
        found["magnitude"][outputs] = change.magnitude.reshape(-1)
    return found


def joined(parts: Mapping[int, dict[str, np.ndarray]], count: int) -> dict[str, np.ndarray]:
    """One layer of the layers of its pieces: with one A where they share it, else side by side."""
    first = next(iter(parts.values()))
    if count == 1:
        return first
    same = [np.array_equal(p["a"], first["a"]) and p["alpha"] == first["alpha"]
            for p in parts.values()]  # fmt: skip
    shared, width = len(parts) == count and all(same), first["b"].shape[1]
    if any("magnitude" in p for p in parts.values()):
        raise InputError("a DoRA of one of several fused layers cannot be read apart; merge it.")
    if shared:
        return {**first, "b": np.concatenate([parts[i]["b"] for i in range(count)], 1)}
    a = np.concatenate([p["a"] for p in parts.values()], -1)
    b, start = np.zeros((a.shape[-1], count * width), np.float32), 0
    for i, p in parts.items():
        rank = p["a"].shape[-1]
        scaled = p["b"] * np.float32(p["alpha"] / rank)
        b[start : start + rank, i * width : (i + 1) * width] = scaled
        start += rank
    return {"a": a, "b": b, "alpha": np.float32(a.shape[-1])}


def read_lora(path: str | Path, names: Names, like: Params, part: str = "unet") -> PyTree:
    """A LoRA file as a LoRA of ours, whose layers have an "alpha" of their own.

    Args:
      path: a file, or a folder of one, of any form that `merge_lora` reads.
      names: of the network's kernels, from `own_layers` or of its architecture.
      like: its parameters, arrays or shapes; of no block in a scan.
      part: of a pipeline.

    Returns:
      The LoRA; rsLoRA's scale is in its alphas.

    Raises:
      InputError: a key that matches no layer, a file without any, or shapes that do not fit.
    """
    file, flat = lora_file(path), flatten_dict(like)
    changes = changes_of(read_tensors(file), part)
    if not changes:
        raise InputError(f"{path} changes no layer of a {part}; give a LoRA file of this model.")
    kernels = {n: flat[e.path].shape for n, e in names.items() if e.path[-1] == "kernel"}
    theirs = {n: np.broadcast_to(0, orders(names[n], s)[2]) for n, s in kernels.items()}
    parts: dict[tuple, dict] = {}
    for layer, change in changes.items():
        targets = targets_of(layer, theirs)
        rank = check_change(layer, change, [theirs[name].shape for name in targets])
        alpha, start = rank * factor_of(layer, change, rank, metadata_of(file, part)), 0
        for name in targets:
            rows = slice(start, start + theirs[name].shape[0])
            m = None if change.magnitude is None else change.magnitude.reshape(-1)[rows]
            one, entry = Change(change.down, change.up[rows], alpha, m), names[name]
            found = layer_of(one, entry, kernels[name])
            parts.setdefault(entry.path, {})[entry.piece[0]] = (found, entry.piece[1])
            start = rows.stop
    return unflatten_dict({
        path: joined({i: found for i, (found, _) in each.items()}, next(iter(each.values()))[1])
        for path, each in parts.items()
    })  # fmt: skip


def written(lora: PyTree, names: Names, like: Params) -> dict[str, Change]:
    """The layers of a LoRA of ours by the reference's names of their layers.

    Raises:
      InputError: a layer has no name there.
    """
    flat, left = flatten_dict(like), dict(layers(lora))
    found = {
        name.removesuffix(".weight"): pieces_of(left[e.path], e, flat[e.path].shape)
        for name, e in names.items()
        if e.path in left
    }
    missed = left.keys() - {e.path for e in names.values()}
    if missed:
        raise InputError(f"the reference has no name for the layer {'/'.join(sorted(missed)[0])}.")
    return found


def peft(changes: Mapping[str, Change], prefix: str = "unet.") -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a file in the form of diffusers with PEFT."""
    tensors, alphas, ranks = {}, {}, {}
    for layer, change in changes.items():
        tensors[f"{prefix}{layer}.lora_A.weight"] = change.down
        tensors[f"{prefix}{layer}.lora_B.weight"] = change.up
        if change.magnitude is not None:
            tensors[f"{prefix}{layer}.lora_magnitude_vector.weight"] = change.magnitude
        alphas[layer], ranks[layer] = float(change.alpha), change.down.shape[0]
    usual = {"r": next(iter(ranks.values())), "lora_alpha": next(iter(alphas.values()))}
    settings = {
        **usual,
        "rank_pattern": {n: r for n, r in ranks.items() if r != usual["r"]},
        "alpha_pattern": {n: a for n, a in alphas.items() if a != usual["lora_alpha"]},
        "target_modules": [*changes],
        "use_dora": any(change.magnitude is not None for change in changes.values()),
    }
    settings = {f"{prefix}{name}": value for name, value in settings.items()}
    return tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}


def kohya(
    changes: Mapping[str, Change], prefix: str = "lora_unet_"
) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a file in the form of kohya's scripts.

    Raises:
      InputError: two layers would have one name.
    """
    tensors: Tensors = {}
    for layer, change in changes.items():
        name = prefix + layer.replace(".", "_")
        if f"{name}.alpha" in tensors:
            raise InputError(f"kohya's form has one name for two layers, {name}; write PEFT's.")
        tensors[f"{name}.lora_down.weight"] = change.down
        tensors[f"{name}.lora_up.weight"] = change.up
        tensors[f"{name}.alpha"] = np.asarray(change.alpha, np.float32)
        if change.magnitude is not None:
            ones = (1,) * (change.down.ndim - 1)
            tensors[f"{name}.dora_scale"] = change.magnitude.reshape(-1, *ones)
    return tensors, {"format": "pt"}


Form = Callable[[Mapping[str, Change]], tuple[Tensors, dict[str, str]]]


def write_lora(
    path: str | Path,
    lora: PyTree,
    names: Names,
    like: Params,
    form: Form = peft,
    base: str | None = None,
) -> None:
    """Write a LoRA of ours as a safetensors file.

    Args:
      path: of the file.
      lora: its layers have an "alpha", or it is their rank.
      names: as for `read_lora`.
      like: likewise.
      form: `peft` or `kohya`.
      base: fingerprint of the network that it is for, which is then refused to others.

    Raises:
      InputError: as `written` and `form`.
    """
    from safetensors.numpy import save_file

    tensors, metadata = form(written(lora, names, like))
    tensors = {name: np.ascontiguousarray(w) for name, w in tensors.items()}
    save_file(tensors, path, metadata | ({BASE: base} if base else {}))


def base_of(path: str | Path) -> str | None:
    """The fingerprint of the base that a LoRA file was trained on; None where it does not say."""
    file = lora_file(path)[0]
    return read_metadata(file).get(BASE) if file.suffix == ".safetensors" else None


def check_base(path: str | Path, found: set[str]) -> None:
    """Refuse a LoRA file of another base.

    Args:
      path: of the file.
      found: fingerprints of the networks that it may be for.

    Raises:
      InputError: it was trained on none of them.
    """
    wanted = base_of(path)
    if wanted is not None and wanted not in found:
        raise InputError(
            f"{path} is a LoRA of another base (fingerprint {wanted}; this is "
            f"{' or '.join(sorted(found))}); give the run that it was trained on, or write the "
            "file anew with --any-base."
        )


def stack_like(lora: PyTree, like: Params) -> PyTree:
    """A LoRA of blocks apart as one of a network whose blocks are in a scan.

    Args:
      lora: a tree of arrays.
      like: the network's parameters, arrays or shapes.

    Raises:
      InputError: it changes some of the blocks of a scan and not all, or in other shapes.
    """
    if not isinstance(like, Mapping):
        return lora
    found, left = {}, dict(lora)
    for name in like:
        match = RUN.fullmatch(name)
        if not match:
            if name in left:
                found[name] = stack_like(left.pop(name), like[name])
            continue
        blocks = [f"{match[1]}{i}" for i in range(int(match[2]), int(match[3]) + 1)]
        there = [left.pop(block) for block in blocks if block in left]
        if there:
            found[name] = _stacked(there, len(blocks), name)
    return found | left


def _stacked(trees: list, count: int, name: str) -> PyTree:
    import jax

    shapes = [jax.tree.map(np.shape, tree) for tree in trees]
    if len(trees) != count or any(shape != shapes[0] for shape in shapes):
        raise InputError(
            f"the LoRA does not change all blocks of {name} alike, which are one here; give a "
            "network without scan_blocks."
        )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
