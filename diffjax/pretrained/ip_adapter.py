"""IP-Adapter's published files, for the U-Nets of Stable Diffusion."""

import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.errors import InputError
from diffjax.models import UNet
from diffjax.models import network as as_network
from diffjax.models.ip_adapter import ImageTokens, Resampler
from diffjax.models.unet import with_attention
from diffjax.models.unet_attention import SpatialTransformer, kind
from diffjax.pretrained.architecture import (
    Architecture,
    Module,
    Pretrained,
    known_arguments,
    shapes,
)
from diffjax.pretrained.diffusers_unet import condition_module, names_of, smallest_inputs
from diffjax.pretrained.diffusers_unet_config import CONDITION
from diffjax.pretrained.naming import Names, Tensors, to_params
from diffjax.pretrained.own_names import part
from diffjax.pretrained.tensors import read_tensors
from diffjax.types import Params, Scalar

PLUS = {
    "embed_dims": 768,
    "output_dims": 1024,
    "hidden_dims": 1280,
    "depth": 4,
    "dim_head": 64,
    "heads": 16,
    "num_queries": 8,
    "ffn_ratio": 4.0,
}
PLUS_NAMES = (
    (r"^(layers\.\d+)\.0\.norm1\.", r"\1.ln0."),
    (r"^(layers\.\d+)\.0\.norm2\.", r"\1.ln1."),
    (r"^(layers\.\d+)\.0\.to_out\.", r"\1.attn.to_out.0."),
    (r"^(layers\.\d+)\.0\.to_", r"\1.attn.to_"),
    (r"^(layers\.\d+)\.1\.0\.", r"\1.ff.0."),
    (r"^(layers\.\d+)\.1\.1\.", r"\1.ff.1.net.0.proj."),
    (r"^(layers\.\d+)\.1\.3\.", r"\1.ff.1.net.2."),
)
"""The published file's names of the resampler, and diffusers'."""
HEAD = 64  # channels of a head of the published resamplers


class IPAdapter(NamedTuple):
    """A U-Net that also reads a picture.

    Attributes:
      unet: as before, and it needs cond["image_tokens"].
      tokens: its network takes the picture's embedding (B, E), or for IP-Adapter Plus the
        penultimate states (B, L, E) of the CLIP vision encoder, to those tokens. Without a picture
        (under classifier-free guidance) they are of zeros, and of a black picture's states.
    """

    unet: Pretrained
    tokens: Module


def ip_adapter(unet: Pretrained, path: str | Path, scale: Scalar = 1.0) -> IPAdapter:
    """A U-Net with an IP-Adapter (Ye et al. 2023, Eq. 5).

    Args:
      unet: a UNet2DConditionModel from `pretrained.load`.
      path: the adapter's safetensors file, with image_proj.* and ip_adapter.*.
      scale: of what the picture adds; 0 is the U-Net without it. It is multiplied into the values.

    Returns:
      Both networks.

    Raises:
      InputError: not such a U-Net, or the file is not an adapter for it.
    """
    where = "UNet2DConditionModel"
    if not isinstance(unet, Pretrained) or unet.config.get("_class_name") != where:
        raise InputError("an IP-Adapter is for a UNet2DConditionModel; give one from load.")
    tensors = read_tensors([Path(path)])
    other = [name for name in tensors if not name.startswith(("image_proj.", "ip_adapter."))]
    if other or not tensors:
        raise InputError(
            f"{path} is not an IP-Adapter: expected tensors image_proj.* and ip_adapter.*; got "
            f"{other[0] if other else 'none'}."
        )
    c = known_arguments(unet.config, CONDITION, where)
    _, cond = condition_module(c, where)
    module = reading_images(unet.module)
    cond["image_tokens"] = cond["tokens"]
    like = jax.eval_shape(module.init, jax.random.key(0), *smallest_inputs(module, c, cond))
    names = numbered_names(module, c)
    params = image_params(under("ip_adapter.", tensors), names, like["params"], scale)
    whole = unflatten_dict(flatten_dict(unet.params) | flatten_dict(params))
    unet = unet._replace(network=as_network(module), module=module, params=whole)
    return IPAdapter(unet, projection(under("image_proj.", tensors)))


def under(start: str, tensors: Tensors) -> Tensors:
    """The tensors whose names begin so, without that beginning."""
    return {k.removeprefix(start): w for k, w in tensors.items() if k.startswith(start)}


def reading_images(module: UNet) -> UNet:
    """The U-Net whose transformers also attend to a picture's tokens."""

    def reading(attend):
        return partial(attend, images=True) if kind(attend) is SpatialTransformer else attend

    return with_attention(module, reading)


def numbered_names(module: UNet, c: dict[str, Any]) -> Names:
    """The file's keys and values of a picture's tokens, by layer.

    It numbers the layers 1, 3, 5, ... through the way down, the way up, and the middle.

    Args:
      module: from `reading_images`.
      c: arguments of the reference, all of them.
    """
    names = {k: entry for k, entry in names_of(module, c).items() if "_ip." in k}
    ways = ("down", "up", "mid")
    layers = dict.fromkeys(name.rpartition(".to_")[0] for name in names)
    ordered = sorted(layers, key=lambda layer: ways.index(layer.split("_block")[0]))
    numbers = {layer: f"{2 * i + 1}" for i, layer in enumerate(ordered)}

    def numbered(name):
        layer, dot, rest = name.rpartition(".to_")
        return numbers[layer] + dot + rest

    return {numbered(name): entry for name, entry in names.items()}


def image_params(tensors: Tensors, names: Names, like: Params, scale: Scalar) -> Params:
    """The parameters that the file's tensors are, with its values scaled."""
    paths = {entry.path for entry in names.values()}
    own = {path: leaf for path, leaf in flatten_dict(like).items() if path in paths}
    scaled = {k: w * scale if "to_v_ip" in k else w for k, w in tensors.items()}
    return to_params(scaled, names, unflatten_dict(own))


def projection(tensors: Tensors) -> Module:
    """What makes tokens of a picture, by the tensors of its file.

    Raises:
      InputError: it is neither the linear one nor IP-Adapter Plus's resampler.
    """
    if "latents" in tensors:
        tensors = plus_names(tensors)
        architecture = ip_adapter_plus(plus_config(tensors))
    elif "proj.weight" in tensors and "norm.weight" in tensors:
        (width,), (features, channels) = (tensors[f"{k}.weight"].shape for k in ("norm", "proj"))
        module = ImageTokens(features // width, width)
        architecture = part(module, (jax.ShapeDtypeStruct((1, channels), np.float32),))
    else:
        raise InputError(
            "image_proj is not one that is built here: expected IP-Adapter's proj and norm, or "
            f"IP-Adapter Plus's latents; got {', '.join(sorted(tensors)[:3])}."
        )
    return architecture.finish(to_params(tensors, architecture.names, shapes(architecture)), {})


def plus_names(tensors: Tensors) -> Tensors:
    """The resampler's tensors by diffusers' names; keys and values are one in the file."""
    renamed = {}
    for name, w in tensors.items():
        for old, new in PLUS_NAMES:
            name = re.sub(old, new, name)
        if name.endswith("attn.to_kv.weight"):
            for letter, half in zip("kv", np.split(w, 2), strict=True):
                renamed[name.replace("to_kv", f"to_{letter}")] = half
        else:
            renamed[name] = w
    return renamed


def plus_config(tensors: Tensors) -> dict[str, Any]:
    """The arguments of diffusers' IPAdapterPlusImageProjection, by its tensors."""
    _, queries, hidden = tensors["latents"].shape
    return {
        "embed_dims": tensors["proj_in.weight"].shape[1],
        "output_dims": tensors["proj_out.weight"].shape[0],
        "hidden_dims": hidden,
        "depth": len([name for name in tensors if name.endswith(".ln0.weight")]),
        "dim_head": HEAD,
        "heads": tensors["layers.0.attn.to_q.weight"].shape[0] // HEAD,
        "num_queries": queries,
        "ffn_ratio": tensors["layers.0.ff.1.net.2.weight"].shape[1] / hidden,
    }


def ip_adapter_plus(config: dict[str, Any]) -> Architecture:
    """diffusers' IPAdapterPlusImageProjection, by its arguments.

    Raises:
      InputError: an argument that it does not have.
    """
    c = known_arguments(config, PLUS, "IPAdapterPlusImageProjection")
    module = Resampler(
        queries=c["num_queries"],
        hidden=c["hidden_dims"],
        width=c["output_dims"],
        depth=c["depth"],
        heads=c["heads"],
        head_width=c["dim_head"],
        ratio=float(c["ffn_ratio"]),
    )
    return part(module, (jax.ShapeDtypeStruct((1, 1, c["embed_dims"]), np.float32),))
