"""What unCLIP's decoder is told, as diffusers' UnCLIPTextProjModel has it."""

from typing import Any

import jax
import numpy as np

from diffjax.models.clip_decoder import ClipContext
from diffjax.pretrained.architecture import Architecture, known_arguments
from diffjax.pretrained.own_names import part

WHERE = "UnCLIPTextProjModel"
DEFAULTS = {
    "clip_extra_context_tokens": 4,
    "clip_embeddings_dim": 768,
    "time_embed_dim": 1280,
    "cross_attention_dim": 1536,
}


def text_projection(config: dict[str, Any]) -> Architecture:
    """diffusers' UnCLIPTextProjModel, by its config.json.

    Raises:
      InputError: an argument that it does not have.
    """
    c = known_arguments(config, DEFAULTS, WHERE)
    sizes = c["cross_attention_dim"], c["time_embed_dim"], c["clip_extra_context_tokens"]
    of = lambda *shape: jax.ShapeDtypeStruct((1, *shape), np.float32)  # noqa: E731
    width = c["clip_embeddings_dim"]
    return part(ClipContext(*sizes), (of(width), of(), of(width), of(1, width)))
