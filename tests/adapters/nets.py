"""Networks as check_nets.py calls them, where its own calls name conditions otherwise."""

import jax.numpy as jnp
import numpy as np

from diffjax.models.controlnet import guess_scales
from diffjax.models.layers import sinusoidal_embedding


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


def _text_and_ids(io, config):
    """Stable Diffusion XL's vector: pooled text, and the sinusoids of the six numbers."""
    width, ids = config["addition_time_embed_dim"], io["in_time_ids"]
    waves = sinusoidal_embedding(jnp.asarray(ids, jnp.float32).reshape(-1), width)
    if not config["flip_sin_to_cos"]:
        waves = jnp.roll(waves, width // 2, axis=1)
    return jnp.concatenate([jnp.asarray(io["in_text_embeds"]), waves.reshape(len(ids), -1)], 1)


def _controlnet(p, io, config):
    """Residuals at the scale 0.8 that the golden numbers are at, and those without a prompt."""
    cond = _conditions(io, tokens="context") | {"image": _image(io, "image")}
    if "in_text_embeds" in io.files:
        cond["vector"] = _text_and_ids(io, config)
    made = p.network(p.params, _image(io, "x"), jnp.asarray(io["in_t"]), cond, None)
    out = [np.moveaxis(np.asarray(r), -1, 1) for r in made]
    *down, mid = [0.8 * r for r in out]
    pairs = [(r, io[f"out_down_{i}"]) for i, r in enumerate(down)] + [(mid, io["out_mid"])]
    guess = [f * r for f, r in zip(guess_scales(len(out)), out, strict=True)]
    named = {f"out_guess_down_{i}": r for i, r in enumerate(guess)} | {"out_guess_mid": guess[-1]}
    return pairs + [(r, io[name]) for name, r in named.items() if name in io.files]


CALLS = {
    "ControlNetModel": _controlnet,
    "PriorTransformer": _prior,
    "PixArtTransformer2DModel": _denoise(
        tokens="context", token_mask="mask", resolution="resolution", aspect_ratio="aspect_ratio"
    ),
    "SanaTransformer2DModel": _denoise(tokens="context", token_mask="mask", guidance="guidance"),
}
