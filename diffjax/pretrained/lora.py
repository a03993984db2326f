"""Published LoRA files merged into published weights: Hu et al. 2022.

Formats: diffusers and PEFT (`X.lora_A.weight`), older diffusers (`X.lora.down.weight`), kohya
(`lora_unet_X.lora_down.weight`, the dots of X as underscores), each perhaps with alphas, DoRA's
magnitudes, or alphas and rsLoRA in the safetensors metadata.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError, sentence
from diffjax.pretrained.architecture import Encoder, Loaded, shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.naming import Leaf, Tensors, to_params, to_tensors
from diffjax.pretrained.tensors import read_metadata, read_tensors

PREFIXES = {
    "unet": ("unet.", "transformer.", "lora_unet_", "lora_transformer_"),
    "text_encoder": ("text_encoder.", "lora_te_", "lora_te1_"),
    "text_encoder_2": ("text_encoder_2.", "lora_te2_"),
}
"""How a file names the parts of a pipeline."""

PIECES = {
    "down": r"\.(?:lora_A|lora\.down|lora_down|lora_linear_layer\.down)(?:\.default)?\.weight$",
    "up": r"\.(?:lora_B|lora\.up|lora_up|lora_linear_layer\.up)(?:\.default)?\.weight$",
    "alpha": r"\.alpha$",
    "magnitude": r"\.(?:lora_magnitude_vector(?:\.default)?(?:\.weight)?|dora_scale)$",
}
FLUX_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn_proj": ("attn.to_out.0",),
    "txt_attn_proj": ("attn.to_add_out",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_mod_lin": ("norm1_context.linear",),
}
FLUX_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}


class Change(NamedTuple):
    """One layer of a LoRA file; None where it has no such tensor.

    Attributes:
      down: A (r, in).
      up: B (out, r).
      alpha: a number.
      magnitude: DoRA's m (out,).
    """

    down: np.ndarray | None = None
    up: np.ndarray | None = None
    alpha: np.ndarray | None = None
    magnitude: np.ndarray | None = None


def merge_lora(
    model: Loaded, path: str | Path, scale: Any = 1.0, part: str | None = None
) -> Loaded:
    """The model with W + scale (alpha / r) B A in place of W: Hu et al. 2022, Eq. 3.

    With rsLoRA alpha / sqrt(r) (Kalajdzievski 2023), and with DoRA the rows of the sum scaled to
    their magnitudes (Liu et al. 2024, Eq. 5). Several files are merged one after the other.

    Args:
      model: from `load`.
      path: a LoRA file, or a folder of one.
      scale: of the change; 0 leaves the model as it is but for DoRA.
      part: of a pipeline, "unet", "text_encoder" or "text_encoder_2"; by default by the kind of
        the model. What a file says of other parts is left to them.

    Raises:
      InputError: a key of this part that matches no layer, a file without any, or shapes that do
        not fit.
    """
    part = part or ("text_encoder" if isinstance(model, Encoder) else "unet")
    architecture = architecture_of(model.config)
    weights = with_lora(to_tensors(model.params, architecture.names), path, scale, part)
    return model._replace(params=to_params(weights, architecture.names, shapes(architecture)))


def with_lora(
    weights: Mapping[str, Any], path: str | Path, scale: Any = 1.0, part: str = "unet"
) -> dict[str, Any]:
    """The tensors of one part of a pipeline; those that a file changes are merged as they are read.

    Args:
      weights: by the reference's names; arrays or `Leaf`s.
      path: a LoRA file, or a folder of one.
      scale: as for `merge_lora`.
      part: likewise.

    Raises:
      InputError: as `merge_lora`.
    """
    if part not in PREFIXES:
        raise InputError(f"expected a part of {', '.join(PREFIXES)}; got {part!r}.")
    file, weights = lora_file(path), dict(weights)
    changes = changes_of(read_tensors(file), part)
    if not changes:
        raise InputError(f"{path} changes no layer of a {part}; give a LoRA file of this model.")
    for layer, change in changes.items():
        merge_layer(weights, layer, change, metadata_of(file, part), scale)
    return weights


def lora_file(path: str | Path) -> list[Path]:
    """The file of a path, or of a folder.

    Raises:
      InputError: there is none.
    """
    path = Path(path)
    file = sorted(path.glob("*.safetensors"))[:1] if path.is_dir() else [path]
    if not file or not file[0].is_file():
        raise InputError(f"{path} is no LoRA file; give a .safetensors file or a folder with one.")
    return file


def parts_of(path: str | Path) -> set[str]:
    """The parts of a pipeline that a LoRA file changes.

    Raises:
      InputError: there is no such file, or a key is of no known form.
    """
    tensors = read_tensors(lora_file(path))
    return {part for part in PREFIXES if changes_of(tensors, part)}


def changes_of(tensors: Tensors, part: str) -> dict[str, Change]:
    """The layers of one part, by the file's names without their prefix.

    Raises:
      InputError: a key that is of no known form or part.
    """
    found: dict[str, dict] = {}
    for name, w in tensors.items():
        name = re.sub(r"\.processor\.to_(q|k|v|out)_lora\.", _older, name)
        kinds = [k for k, pattern in PIECES.items() if re.search(pattern, name)]
        home = next((p for p, prefixes in PREFIXES.items() if name.startswith(prefixes)), None)
        if not kinds or home is None:
            raise InputError(
                f"the LoRA file's tensor {name!r} is of no known form; expected names such as "
                "unet.X.lora_A.weight, unet.X.lora.down.weight or lora_unet_X.lora_down.weight."
            )
        if home == part:
            prefix = next(p for p in PREFIXES[part] if name.startswith(p))
            layer = re.sub(PIECES[kinds[0]], "", name.removeprefix(prefix))
            found.setdefault(layer, {})[kinds[0]] = np.asarray(w, np.float32)
    return {layer: Change(**pieces) for layer, pieces in found.items()}


def _older(match: re.Match) -> str:
    return f".to_{'out.0' if match[1] == 'out' else match[1]}.lora."


def metadata_of(file: list[Path], part: str) -> dict[str, Any]:
    """PEFT's settings of a part, from the safetensors metadata; {} where there are none."""
    if not file or file[0].suffix != ".safetensors":
        return {}
    try:
        found = json.loads(read_metadata(file[0]).get("lora_adapter_metadata", "{}"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file[0]}: its metadata is not JSON: {sentence(error)}") from error
    names = ("unet.", "transformer.") if part == "unet" else (f"{part}.",)
    return {k.split(".", 1)[1]: v for k, v in found.items() if k.startswith(names)}


def targets_of(layer: str, weights: Mapping[str, Any]) -> list[str]:
    """The weights that a layer of the file changes, rows of one after those of the next.

    Raises:
      InputError: there is none.
    """
    if f"{layer}.weight" in weights:
        return [f"{layer}.weight"]
    flat = {name.removesuffix(".weight").replace(".", "_"): name for name in weights}
    if layer in flat:
        return [flat[layer]]
    match = re.fullmatch(r"(double|single)_blocks_(\d+)_(.+)", layer)
    if match:
        table = FLUX_DOUBLE if match[1] == "double" else FLUX_SINGLE
        place = "transformer_blocks" if match[1] == "double" else "single_transformer_blocks"
        names = [f"{place}.{match[2]}.{name}.weight" for name in table.get(match[3], ())]
        if names and all(name in weights for name in names):
            return names
    raise InputError(f"the LoRA file changes {layer!r}, which this network does not have.")


def merge_layer(
    weights: dict[str, Any], layer: str, change: Change, settings: dict[str, Any], scale: Any
) -> None:
    """Change the weights of one layer in place; as `merge_lora`."""
    names = targets_of(layer, weights)
    rank = check_change(layer, change, [weights[name].shape for name in names])
    a, b = change.down.reshape(rank, -1), change.up.reshape(change.up.shape[0], -1)
    by, start = np.float32(scale * factor_of(layer, change, rank, settings)), 0
    for name in names:
        w, part = weights[name], slice(start, start + weights[name].shape[0])
        weights[name] = Leaf(w.shape, partial(merged_rows, w, by, a, b, change.magnitude, part))
        start = part.stop


def check_change(layer: str, change: Change, shapes: Sequence[tuple[int, ...]]) -> int:
    """Refuse a layer that does not fit the weights that it changes.

    Args:
      layer: its name.
      change: its tensors.
      shapes: of the weights, (out, in, ...), whose rows follow one another.

    Returns:
      Its rank.

    Raises:
      InputError: a matrix is missing, or of another shape.
    """
    if change.down is None or change.up is None:
        raise InputError(f"the LoRA file has only one of the two matrices of {layer!r}.")
    rank, rows = change.down.shape[0], sum(shape[0] for shape in shapes)
    inputs = math.prod(shapes[0][1:])
    a, b = change.down.reshape(rank, -1), change.up.reshape(change.up.shape[0], -1)
    if a.shape[1] != inputs or b.shape != (rows, rank):
        raise InputError(
            f"the LoRA file's {layer!r} is of shapes {a.shape} and {b.shape}; expected "
            f"({rank}, {inputs}) and ({rows}, {rank})."
        )
    if change.magnitude is not None and change.magnitude.size != rows:
        raise InputError(f"expected a magnitude for each of {rows} rows of {layer!r}.")
    return rank


def merged_rows(w, by, a, b, magnitude, part: slice) -> np.ndarray:
    """W + by (B A)[part] for the rows that W is of a layer, under DoRA's magnitudes if any."""
    w = np.asarray(w, np.float32)
    merged = w + (by * (b @ a))[part].reshape(w.shape)
    return merged if magnitude is None else with_magnitude(merged, magnitude.reshape(-1)[part])


def with_magnitude(w: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
    """The rows of w scaled to their magnitudes: Liu et al. 2024 (DoRA), Eq. 5."""
    norm = np.linalg.norm(w.reshape(w.shape[0], -1), axis=1)
    return w * (magnitude / norm).reshape(-1, *[1] * (w.ndim - 1))


def factor_of(layer: str, change: Change, rank: int, settings: dict[str, Any]) -> float:
    """alpha / r, or alpha / sqrt(r) under rsLoRA; alpha is the layer's own, the file's, or r."""
    own = settings.get("alpha_pattern") or {}
    fits = [v for k, v in own.items() if re.match(rf"(.*\.)?({k})$", layer)]
    alpha = change.alpha if change.alpha is not None else settings.get("lora_alpha", rank)
    alpha = fits[0] if fits and change.alpha is None else alpha
    alpha = float(np.asarray(alpha).reshape(-1)[0])
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
