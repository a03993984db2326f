"""Networks as check_nets.py calls them, where its own calls name conditions otherwise."""

import jax.numpy as jnp
import numpy as np


def _image(io, name):
    return jnp.moveaxis(jnp.asarray(io[f"in_{name}"]), 1, -1)


def _conditions(io, **names):
    return {a: jnp.asarray(io[f"in_{b}"]) for a, b in names.items() if f"in_{b}" in io.files}


def _denoise(**names):
    def call(p, io, config):
        cond = _conditions(io, **names)
        y = p.network(p.params, _image(io, "x"), jnp.asarray(io["in_t"]), cond, None)
        return [(np.moveaxis(np.asarray(y), -1, 1), io["out_y"])]

    return call


def _prior(p, io, config):
    cond = _conditions(io, tokens="context", vector="text_embeds", token_mask="mask")
    y = p.network(p.params, jnp.asarray(io["in_x"]), jnp.asarray(io["in_t"]), cond, None)
    return [(y, io["out_y"])]


CALLS = {
    "PriorTransformer": _prior,
    "PixArtTransformer2DModel": _denoise(
        tokens="context", token_mask="mask", resolution="resolution", aspect_ratio="aspect_ratio"
    ),
    "SanaTransformer2DModel": _denoise(tokens="context", token_mask="mask", guidance="guidance"),
}
