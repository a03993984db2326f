"""Networks as check_nets.py calls them, where its own calls name conditions otherwise."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from nets import weight
from safetensors.numpy import save_file

from diffjax.models.controlnet import guess_scales
from diffjax.models.layers import sinusoidal_embedding
from diffjax.pretrained.architecture import known_arguments
from diffjax.pretrained.diffusers_unet import condition_module, smallest_inputs
from diffjax.pretrained.diffusers_unet_config import CONDITION
from diffjax.pretrained.ip_adapter import ip_adapter, numbered_names, reading_images
from diffjax.pretrained.naming import expected_shapes


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


def _ip_adapter(p, io, config):
    """The U-Net at three scales with an adapter's file as published, whose tensors are a function
    of their names."""
    c = known_arguments(config, CONDITION, "UNet2DConditionModel")
    module, cond = condition_module(c, "UNet2DConditionModel")
    module, cond["image_tokens"] = reading_images(module), cond["tokens"]
    inputs = smallest_inputs(module, c, cond)
    like = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    names = numbered_names(module, c)
    shapes = {f"ip_adapter.{k}": s for k, s in expected_shapes(names, like).items()}
    tokens, width = io["out_image_tokens"].shape[1:]
    embeds = io["in_image_embeds"]
    shapes["image_proj.proj.weight"] = (tokens * width, embeds.shape[1])
    shapes["image_proj.proj.bias"] = (tokens * width,)
    shapes |= {f"image_proj.norm.{k}": (width,) for k in ("weight", "bias")}
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ip_adapter.safetensors"
        save_file({name: weight(name, shape) for name, shape in shapes.items()}, file)
        for name in (name for name in io.files if name.startswith("out_y_scale_")):
            adapted = ip_adapter(p, file, float(name.rpartition("_")[2]))
            made = adapted.tokens.network(adapted.tokens.params, jnp.asarray(embeds))
            cond = _conditions(io, tokens="context") | {"image_tokens": made}
            given = (adapted.unet.params, _image(io, "x"), jnp.asarray(io["in_t"]), cond, None)
            y = adapted.unet.network(*given)
            pairs += [(np.moveaxis(np.asarray(y), -1, 1), io[name]), (made, io["out_image_tokens"])]
    return pairs


def _asymmetric(p, io, config):
    """Mean, and what it decodes to without and with the kept part of the image."""
    x = _image(io, "x")
    z = jnp.moveaxis(jnp.asarray(io["out_mean"]), 1, -1)
    pairs = [(p.encode(p.params, x)[0], "mean"), (p.decode(p.params, z), "decoded")]
    if "in_mask" in io.files:
        pairs.append((p.decode(p.params, z, x, _image(io, "mask")), "decoded_masked"))
    return [(np.moveaxis(np.asarray(y), -1, 1), io[f"out_{name}"]) for y, name in pairs]


def _sd3_controlnet(p, io, config):
    """Residuals at the scale 0.7 that the golden numbers are at."""
    cond = _conditions(io, tokens="context", vector="pooled") | {"image": _image(io, "image")}
    made = p.network(p.params, _image(io, "x"), jnp.asarray(io["in_t"]), cond, None)
    return [(0.7 * r, io[f"out_block_{i}"]) for i, r in enumerate(made)]


def _flux_controlnet(p, io, config):
    """Likewise."""
    names = {"tokens": "context", "vector": "pooled", "guidance": "guidance"}
    cond = _conditions(io, **names, image="cond", image_ids="img_ids")
    double, single = p.network(
        p.params, jnp.asarray(io["in_x"]), jnp.asarray(io["in_t"]), cond, None
    )
    named = {f"block_{i}": r for i, r in enumerate(double)}
    named |= {f"single_{i}": r for i, r in enumerate(single)}
    return [(0.7 * r, io[f"out_{name}"]) for name, r in named.items()]


CALLS = {
    "StableCascadeUNet": _denoise(
        vector="clip_text_pooled",
        tokens="clip_text",
        image_embedding="clip_img",
        sca="sca",
        crp="crp",
    ),
    "SD3ControlNetModel": _sd3_controlnet,
    "FluxControlNetModel": _flux_controlnet,
    "AsymmetricAutoencoderKL": _asymmetric,
    "unet_ip_adapter": _ip_adapter,
    "IPAdapterPlusImageProjection": lambda p, io, config: [
        (p.network(p.params, jnp.asarray(io["in_x"])), io["out_tokens"])
    ],
    "ControlNetModel": _controlnet,
    "PriorTransformer": _prior,
    "PixArtTransformer2DModel": _denoise(
        tokens="context", token_mask="mask", resolution="resolution", aspect_ratio="aspect_ratio"
    ),
    "SanaTransformer2DModel": _denoise(tokens="context", token_mask="mask", guidance="guidance"),
}
