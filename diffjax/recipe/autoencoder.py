"""Autoencoders of latent diffusion: their networks, how they are trained, and their model."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax import losses, schedules
from diffjax.conditioning import Condition
from diffjax.errors import InputError
from diffjax.experiment import Model, Sampling
from diffjax.latents import Autoencoder
from diffjax.losses.adversarial import adversarial_loss
from diffjax.losses.autoencoder import autoencoder_loss, variational, vector_quantized
from diffjax.media.image import load_image
from diffjax.models import AutoencoderKL, Decoder, Encoder, PatchDiscriminator
from diffjax.models.patches import patchify, unpatchify
from diffjax.models.vq import ON_SPHERE, VQModel
from diffjax.types import Array, LossFn, Params, Prediction

LAST_LAYER = ("decoder", "conv_out", "kernel")


class Trainable(NamedTuple):
    """An autoencoder that is being trained.

    Attributes:
      autoencoder: what diffusion takes of it.
      init: key -> parameters, {"generator", "discriminator"} where there is a discriminator.
      loss: of batches of pictures.
      context: of the loss, at the first step.
    """

    autoencoder: Autoencoder
    init: Callable[[jax.Array], Params]
    loss: LossFn
    context: dict[str, Any] | None = None


def autoencoder(
    kind: Literal["kl", "vq"] = "kl",
    channels: tuple[int, ...] = (32, 64),
    blocks: int = 1,
    patch: int = 2,
    latent_channels: int = 4,
    kl_weight: float = 0.02,
    codes: int = 1024,
    adversarial: float = 0.0,
    adversarial_start: int = 0,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Callable[[tuple[int, int, int]], Trainable]:
    """An autoencoder of Rombach et al. 2022, (H, W, C) -> `Trainable`.

    Its distance is the sum of absolute differences at three resolutions.

    Args:
      kind: Gaussian latents (kl), or codes of a codebook on the unit sphere (vq).
      channels: width of each level, the finest first; each next one has half the resolution.
      blocks: residual blocks per level of the encoder; the decoder has one more.
      patch: side of the square of pixels that the networks see as one.
      latent_channels: of the latents.
      kl_weight: of the KL, in nats.
      codes: rows of the codebook.
      adversarial: weight of a patch discriminator over what balances the two; 0 has none.
      adversarial_start: steps before it counts.
      dtype: type of the networks' computation; parameters and loss stay float32.
    """

    def make(shape):
        trunk = {"channels": channels, "blocks": blocks, "middle_attention": False}
        trunk |= {"groups": max(1, channels[0] // 4), "dtype": jnp.dtype(dtype)}
        moments = latent_channels * (2 if kind == "kl" else 1)
        nets = Encoder(moments, **trunk), Decoder(shape[2] * patch**2, **trunk)
        if kind == "kl":
            module = AutoencoderKL(*nets, latent_channels)
        else:
            module = VQModel(*nets, latent_channels, codes, **ON_SPHERE)
        return trainable(module, shape, patch, kl_weight, adversarial, adversarial_start)

    return make


def trainable(
    module: nn.Module,
    shape: tuple[int, int, int],
    patch: int,
    kl_weight: float,
    adversarial: float,
    start: int,
) -> Trainable:
    """An autoencoder module of patches of pixels, with its loss. Arguments as above."""
    height, width, _ = shape
    coarse = (height // patch, width // patch)

    def run(method, params, x):
        return module.apply({"params": params}, x, method=method)

    def encode(params, x):
        return run("encode", params, patchify(x, patch).reshape(x.shape[0], *coarse, -1))

    def decode(params, z, method="decode"):
        h = run(method, params, z)
        return unpatchify(h.reshape(h.shape[0], -1, h.shape[-1]), height, width, patch)

    far = losses.multiscale(losses.l1, 3)
    if isinstance(module, VQModel):
        quantize = functools.partial(run, "quantize")
        decode_codes = functools.partial(decode, method="decode_codes")
        objective = vector_quantized(encode, quantize, decode_codes, far)
    else:
        objective = variational(encode, decode, far, kl_weight)

    def init(key):
        return module.init(key, jnp.zeros((1, *coarse, shape[2] * patch**2)))["params"]

    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    found = jax.eval_shape(encode, jax.eval_shape(init, jax.random.key(0)), x)
    latents = jax.tree.leaves(found)[0].shape[1:]
    if not adversarial:
        return Trainable(
            Autoencoder(moments(encode), decode, latents), init, autoencoder_loss(objective)
        )
    critic = PatchDiscriminator()
    if min(height, width) < 2 ** (critic.layers + 1):
        raise InputError(
            f"--adversarial needs pictures of at least {2 ** (critic.layers + 1)} pixels a side, "
            f"which its discriminator sees patches of; got {height} x {width}."
        )

    def init_both(key):
        first, second = jax.random.split(key)
        judged = critic.init(second, jnp.zeros((1, *shape)))["params"]
        return {"generator": init(first), "discriminator": judged}

    def judge(params, x):
        return critic.apply({"params": params}, x)

    loss = adversarial_loss(objective, judge, LAST_LAYER, weight=adversarial, start=start)
    both = Autoencoder(
        lambda params, x: moments(encode)(params["generator"], x),
        lambda params, z: decode(params["generator"], z),
        latents,
    )
    return Trainable(both, init_both, loss, {"adversarial_step": jnp.zeros((), int)})


def moments(encode: Callable) -> Callable[[Params, Array], tuple[Array, Array]]:
    """(params, x) -> (mean, logvar); of an encoder of points the log-variance is -inf."""

    def both(params, x):
        found = encode(params, x)
        return found if isinstance(found, tuple) else (found, jnp.full_like(found, -jnp.inf))

    return both


def picture(shape: tuple[int, int, int]) -> Condition:
    """The picture that an autoencoder is given: the data's own, or that of --image."""

    def flags(num: int, image: Path | None = None):
        """Flags.

        Args:
          num: number of samples.
          image: picture that is encoded and decoded.
        """
        if image is None:
            raise InputError("give --image FILE: this autoencoder draws a given picture again.")
        x = load_image(image, shape[:2], shape[2])
        return {"x": np.broadcast_to(x, (num, *shape))}

    def encode(frozen, raw):
        x = raw["x"]
        return {"x": x / jnp.float32(127.5) - 1 if x.dtype == jnp.uint8 else x}

    return Condition({"x": jax.ShapeDtypeStruct(shape, jnp.float32)}, None, flags, encode)


def autoencoder_model(parts: Trainable, shape: tuple[int, int, int]) -> Model:
    """The model whose samples are the reconstructions of given pictures, in one step.

    Args:
      parts: from `autoencoder`.
      shape: of one picture.
    """
    coder = parts.autoencoder

    def denoiser(params):
        def reconstruct(x_t, t, cond):
            mean, _ = coder.encode(params, cond["x"])
            return Prediction(jnp.clip(coder.decode(params, mean), -1, 1))

        return reconstruct

    return Model(
        init=parts.init,
        denoiser=denoiser,
        example=jax.ShapeDtypeStruct(shape, jnp.float32),
        schedule=schedules.vp_cosine(),
        conditions=(picture(shape),),
        sampling=Sampling(steps=1),
    )
