"""transformers' encoders of text and of pictures: configuration and names."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.text import Bert, CLIPModel, CLIPText, CLIPVision, SiglipVision, T5Encoder
from diffjax.models.text.encoding import exact_gelu, quick_gelu, tanh_gelu
from diffjax.pretrained.architecture import Architecture, Encoder, supported
from diffjax.pretrained.arguments import typed
from diffjax.pretrained.edm import table
from diffjax.pretrained.naming import Layout, scalar
from diffjax.pretrained.own_names import LEAVES, layout_of

ACTIVATIONS = {
    "gelu": exact_gelu,
    "quick_gelu": quick_gelu,
    "relu": nn.relu,
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh"), tanh_gelu),
}
PLACES = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
"""Tables of 0, 1, 2, ... that older files of CLIP hold."""

TEXT = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "hidden_act": "quick_gelu",
    "projection_dim": 512,
    "eos_token_id": 49407,
    "layer_norm_eps": 1e-5,
}
VISION = {
    "image_size": 224,
    "patch_size": 32,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "quick_gelu",
    "projection_dim": 512,
    "num_channels": 3,
    "layer_norm_eps": 1e-5,
}
SIGLIP = VISION | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
SIGLIP |= {"vision_use_head": True}
T5 = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
}
UMT5 = T5 | {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6}
UMT5 |= {"feed_forward_proj": "gated-gelu"}
BERT = {
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}


def clip_text(config: dict[str, Any], projects: bool = False) -> Architecture:
    """CLIPTextModel, or with a projection CLIPTextModelWithProjection.

    Raises:
      InputError: a setting that is not built here.
    """
    c = picked(config.get("text_config") or config, TEXT, "CLIPTextModel")
    return finished(clip_text_module(c, projects), ids(), clip_name("text_model."))


def clip_vision(config: dict[str, Any], projects: bool = False) -> Architecture:
    """CLIPVisionModel, or with a projection CLIPVisionModelWithProjection."""
    c = picked(config.get("vision_config") or config, VISION, "CLIPVisionModel")
    return finished(clip_vision_module(c, projects), pixels(c), clip_name("vision_model."))


def clip_model(config: dict[str, Any]) -> Architecture:
    """CLIPModel: both towers."""
    size = typed("projection_dim", config.get("projection_dim", 512), 512)
    text = picked(config.get("text_config") or {}, TEXT, "CLIPTextModel")
    vision = picked(config.get("vision_config") or {}, VISION, "CLIPVisionModel")
    sized = {"projection_dim": size}
    module = CLIPModel(
        partial(clip_text_module, text | sized, True),
        partial(clip_vision_module, vision | sized, True),
    )

    def name(path):
        if path == ("logit_scale",):
            return "logit_scale"
        return clip_name(path[0] + ".")(path[1:])

    return finished(module, (*ids(), *pixels(vision)), name)


def siglip_vision(config: dict[str, Any]) -> Architecture:
    """SiglipVisionModel."""
    c = picked(config.get("vision_config") or config, SIGLIP, "SiglipVisionModel")
    module = SiglipVision(**vision_sizes(c), head=c["vision_use_head"])
    return finished(module, pixels(c), siglip_name)


def t5_encoder(config: dict[str, Any], own_bias: bool = False) -> Architecture:
    """T5EncoderModel of v1.0 and v1.1, or with a bias in each block UMT5EncoderModel."""
    c = picked(config, UMT5 if own_bias else T5, "T5EncoderModel")
    kind = c["feed_forward_proj"]
    supported(c, "T5EncoderModel", feed_forward_proj=("relu", "gated-gelu", "gelu", "gated-relu"))
    gelu = tanh_gelu if kind.startswith("gated") else exact_gelu
    module = T5Encoder(
        vocabulary=c["vocab_size"],
        width=c["d_model"],
        depth=c["num_layers"],
        heads=c["num_heads"],
        head_width=c["d_kv"],
        hidden=c["d_ff"],
        activation=gelu if kind.endswith("gelu") else nn.relu,
        gated=kind.startswith("gated"),
        buckets=c["relative_attention_num_buckets"],
        furthest=c["relative_attention_max_distance"],
        own_bias=own_bias,
        epsilon=float(c["layer_norm_epsilon"]),
    )
    return finished(module, ids(), t5_name, ("encoder.embed_tokens.weight",))


def bert(config: dict[str, Any]) -> Architecture:
    """BertModel, and MiniLM's and other sentence encoders of its form."""
    c = picked(config, BERT, "BertModel")
    supported(c, "BertModel", position_embedding_type=("absolute",))
    module = Bert(
        vocabulary=c["vocab_size"],
        length=c["max_position_embeddings"],
        width=c["hidden_size"],
        depth=c["num_hidden_layers"],
        heads=c["num_attention_heads"],
        hidden=c["intermediate_size"],
        types=c["type_vocab_size"],
        activation=ACTIVATIONS[c["hidden_act"]],
        epsilon=float(c["layer_norm_eps"]),
    )
    found = finished(module, ids(), bert_name, ("embeddings.position_ids",))
    return found._replace(modern=lambda name: name.removeprefix("bert."))


# --- modules ----------------------------------------------------------------------------


def picked(config: dict[str, Any], expected: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings of the mathematics; a transformers file holds many more, of other uses.

    Raises:
      InputError: a value of another type, or an activation that is not built here.
    """
    given = {name: config[name] for name in expected if name in config}
    c = expected | {k: typed(k, value, expected[k], one=True) for k, value in given.items()}
    if "hidden_act" in c:
        supported(c, where, hidden_act=tuple(ACTIVATIONS))
    return c


def clip_text_module(c: dict[str, Any], projects: bool, name: str | None = None) -> CLIPText:
    """The text tower of a configuration."""
    return CLIPText(
        vocabulary=c["vocab_size"],
        length=c["max_position_embeddings"],
        width=c["hidden_size"],
        depth=c["num_hidden_layers"],
        heads=c["num_attention_heads"],
        hidden=c["intermediate_size"],
        activation=ACTIVATIONS[c["hidden_act"]],
        projection=c["projection_dim"] if projects else None,
        end=c["eos_token_id"],
        epsilon=float(c["layer_norm_eps"]),
        name=name,
    )


def vision_sizes(c: dict[str, Any]) -> dict[str, Any]:
    """What the vision towers have in common."""
    if c["image_size"] < c["patch_size"]:
        raise InputError("config.json: expected image_size of at least patch_size.")
    return {
        "image": c["image_size"],
        "patch": c["patch_size"],
        "width": c["hidden_size"],
        "depth": c["num_hidden_layers"],
        "heads": c["num_attention_heads"],
        "hidden": c["intermediate_size"],
        "activation": ACTIVATIONS[c["hidden_act"]],
        "epsilon": float(c["layer_norm_eps"]),
    }


def clip_vision_module(c: dict[str, Any], projects: bool, name: str | None = None) -> CLIPVision:
    """The vision tower of a configuration."""
    size = c["projection_dim"] if projects else None
    return CLIPVision(**vision_sizes(c), projection=size, name=name)


def ids() -> tuple:
    """Shapes of a batch of two tokens."""
    return (jax.ShapeDtypeStruct((1, 2), np.int32),)


def pixels(c: dict[str, Any]) -> tuple:
    """Shapes of a batch of one picture."""
    size = c["image_size"]
    return (jax.ShapeDtypeStruct((1, size, size, c["num_channels"]), np.float32),)


def finished(
    module: nn.Module, inputs: tuple, name: Callable, also: tuple[str, ...] = ()
) -> Architecture:
    """The architecture of an encoder whose leaves are named by `name`.

    Args:
      module: the encoder.
      inputs: of its `__call__`, as shapes.
      name: path of a leaf -> the file's name of it.
      also: names that files hold and that say nothing new.
    """

    def finish(params, config):
        encode = lambda params, *inputs: module.apply({"params": params}, *inputs)  # noqa: E731
        logits = encode if isinstance(module, CLIPModel) else None
        return Encoder(encode, params, module, config, logits)

    names = table(module, inputs, name, layout_of_encoder)
    return Architecture(module, inputs, names, finish, ignored=frozenset((*PLACES, *also)))


# --- names ------------------------------------------------------------------------------


def layout_of_encoder(path: tuple[str, ...], shape: tuple[int, ...]) -> Layout:
    """The layout of a leaf; CLIP's one number may be a list of one."""
    return scalar if shape == () else layout_of(path, shape)


def clip_name(prefix: str) -> Callable[[tuple[str, ...]], str]:
    """The names of a tower of CLIP, whose projections have no prefix."""

    def name(path):
        *layers, leaf = path
        first = layers[0] if layers else leaf
        place = ""
        if first.startswith("layers_"):
            place, layers[0] = "encoder.", first.replace("_", ".")
        elif first.endswith("_embedding"):
            place = "embeddings."
        begin = "" if first.endswith("_projection") else prefix + place
        end = [] if leaf == "class_embedding" else [LEAVES.get(leaf, leaf)]
        return begin + ".".join([*layers, *(end or [leaf])])

    return name


def siglip_name(path: tuple[str, ...]) -> str:
    """CLIP's names, and those of the pooling head."""
    if path[0] != "head":
        return clip_name("vision_model.")(path)
    leaf = LEAVES.get(path[-1], path[-1])
    if path[1] == "in_proj":
        return f"vision_model.head.attention.in_proj_{leaf}"
    inner = [part.replace("attention_out_proj", "attention.out_proj") for part in path[1:-1]]
    return ".".join(["vision_model.head", *inner, leaf])


T5_NAMES = {
    **{letter: f"layer.0.SelfAttention.{letter}" for letter in "qkvo"},
    **{name: f"layer.1.DenseReluDense.{name}" for name in ("wi", "wi_0", "wi_1", "wo")},
    "attention_norm": "layer.0.layer_norm",
    "mlp_norm": "layer.1.layer_norm",
}


def t5_name(path: tuple[str, ...]) -> str:
    """The name of a leaf of T5's."""
    first = path[0]
    if first == "shared":
        return "shared.weight"
    if first.startswith("bias_"):
        block = first.removeprefix("bias_")
        return f"encoder.block.{block}.layer.0.SelfAttention.relative_attention_bias.weight"
    if first.startswith("block_"):
        return f"encoder.block.{first.removeprefix('block_')}.{T5_NAMES[path[1]]}.weight"
    return f"encoder.{first}.weight"


BERT_NAMES = {
    **{name: f"attention.self.{name}" for name in ("query", "key", "value")},
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "out": "output.dense",
    "out_norm": "output.LayerNorm",
}


def bert_name(path: tuple[str, ...]) -> str:
    """The name of a leaf of BERT's."""
    leaf = LEAVES.get(path[-1], path[-1])
    if path[0].startswith("layer_"):
        return f"encoder.layer.{path[0].removeprefix('layer_')}.{BERT_NAMES[path[1]]}.{leaf}"
    if path[0] == "pooler":
        return f"pooler.dense.{leaf}"
    return f"embeddings.{path[0].replace('embeddings_norm', 'LayerNorm')}.{leaf}"
