"""diffusers' AutoencoderTiny (TAESD)."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.autoencoder import PointAutoencoder
from diffjax.models.text.encoding import exact_gelu
from diffjax.models.tiny_autoencoder import TinyDecoder, TinyEncoder
from diffjax.pretrained.architecture import (
    Architecture,
    encoding,
    known_arguments,
    point,
    supported,
)
from diffjax.pretrained.own_names import own_names

ACTIVATIONS = {"relu": nn.relu, "silu": nn.silu, "swish": nn.silu, "gelu": exact_gelu}
DEFAULTS = {
    "in_channels": 3,
    "out_channels": 3,
    "encoder_block_out_channels": (64, 64, 64, 64),
    "decoder_block_out_channels": (64, 64, 64, 64),
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "latent_channels": 4,
    "upsampling_scaling_factor": 2,
    "num_encoder_blocks": (1, 3, 3, 3),
    "num_decoder_blocks": (3, 3, 3, 1),
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "force_upcast": False,
    "scaling_factor": 1.0,
    "shift_factor": 0.0,
    "block_out_channels": (64, 64, 64, 64),
}


def autoencoder_tiny(config: dict[str, Any]) -> Architecture:
    """diffusers' AutoencoderTiny, by its config.json. Its latents are a point: logvar is -inf.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, DEFAULTS, "AutoencoderTiny")
    supported(c, "AutoencoderTiny", act_fn=tuple(ACTIVATIONS), upsample_fn=("nearest",))
    for part in ("encoder", "decoder"):
        if len(c[f"{part}_block_out_channels"]) != len(c[f"num_{part}_blocks"]):
            raise InputError(
                f"config.json: expected as many num_{part}_blocks as {part}_block_out_channels."
            )
    encode_widths, decode_widths = (
        tuple(c[f"{part}_block_out_channels"]) for part in ("encoder", "decoder")
    )
    activation = ACTIVATIONS[c["act_fn"]]
    module = PointAutoencoder(
        TinyEncoder(
            c["latent_channels"], encode_widths, tuple(c["num_encoder_blocks"]), activation
        ),
        TinyDecoder(
            c["out_channels"],
            decode_widths,
            tuple(c["num_decoder_blocks"]),
            c["upsampling_scaling_factor"],
            activation,
        ),
    )
    size = 2 ** (len(encode_widths) - 1)
    inputs = (jax.ShapeDtypeStruct((1, size, size, c["in_channels"]), np.float32),)
    finish = encoding(module, point, scaling_factor=1.0)
    return Architecture(module, inputs, own_names(module, inputs), finish)
