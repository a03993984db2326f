"""unCLIP's prior, as diffusers' PriorTransformer has it."""

import jax
import numpy as np

from diffjax.models.clip_prior import ClipPrior
from diffjax.parameterization import at_steps, predict_x0
from diffjax.pretrained.architecture import Architecture, denoising, known_arguments, supported
from diffjax.pretrained.own_names import own_names
from diffjax.pretrained.scheduler import Noise, noise_of
from diffjax.schedules import cosine_betas, from_betas

DEFAULTS = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
    "additional_embeddings": 4,
    "dropout": 0.0,
    "time_embed_act_fn": "silu",
    "norm_in_type": None,
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "added_emb_type": "prd",
    "time_embed_dim": None,
    "embedding_proj_dim": None,
    "clip_embed_dim": None,
}


def cosine() -> Noise:
    """What the prior was trained with: x0 on the cosine table."""
    return from_betas(cosine_betas(1000)), at_steps(predict_x0)


def prior_transformer(config: dict) -> Architecture:
    """diffusers' PriorTransformer, by its config.json.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, DEFAULTS, "PriorTransformer")
    fixed = [name for name in DEFAULTS if not name.startswith(("num_", "attention_head"))]
    fixed.remove("embedding_dim")
    supported(c, "PriorTransformer", **{name: (DEFAULTS[name],) for name in fixed})
    module = ClipPrior(
        heads=c["num_attention_heads"],
        width=c["num_attention_heads"] * c["attention_head_dim"],
        depth=c["num_layers"],
        channels=c["embedding_dim"],
        length=c["num_embeddings"],
    )
    of = lambda *shape: jax.ShapeDtypeStruct((1, *shape), np.float32)  # noqa: E731
    size = c["embedding_dim"]
    inputs = (of(size), of(), {"tokens": of(c["num_embeddings"], size), "vector": of(size)})
    finish = denoising(module, *noise_of(config, cosine))
    return Architecture(module, inputs, own_names(module, inputs), finish)
