"""LoRA files as check_lora.py calls them."""

import jax.numpy as jnp
import numpy as np


def lora_merge(loaded, file, scale):
    from diffjax.pretrained.lora import merge_lora

    return merge_lora(loaded, file, scale)


def run_loaded(name, loaded, io):
    if "in_input_ids" in io.files:
        return loaded.encode(loaded.params, jnp.asarray(io["in_input_ids"])).last
    names = {
        "tokens": "context",
        "vector": "pooled",
        "guidance": "guidance",
        "image_ids": "img_ids",
    }
    cond = {a: jnp.asarray(io[f"in_{b}"]) for a, b in names.items() if f"in_{b}" in io.files}
    x, image = jnp.asarray(io["in_x"]), io["in_x"].ndim == 4
    x = jnp.moveaxis(x, 1, -1) if image else x
    y = np.asarray(loaded.network(loaded.params, x, jnp.asarray(io["in_t"]), cond, None))
    return np.moveaxis(y, -1, 1) if image else y


def lora_ga(weight, gradient, rank, alpha, gamma, rslora):
    from diffjax import lora

    layer = lora.aligned(jnp.asarray(gradient).T, rank, gamma)
    scale = (lora.rslora if rslora else lora.lora).scale(alpha, rank)
    shifted = lora.merge({"w": jnp.asarray(weight).T}, {"w": layer}, -scale)["w"]
    return layer["a"].T, layer["b"].T, shifted.T
