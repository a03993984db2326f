"""A picture as a prompt: an IP-Adapter joined to a system, and the condition that it reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.conditioning import Condition
from diffjax.errors import InputError, sentence
from diffjax.models.ip_adapter import Resampler
from diffjax.models.text import CLIPVision
from diffjax.pretrained.adapters import Adapted, Adapter, open_alone
from diffjax.pretrained.architecture import Encoder, Module, Pretrained
from diffjax.pretrained.ip_adapter import ip_adapter
from diffjax.pretrained.pipeline import Part
from diffjax.types import Array, PyTree

ENCODER, PROJECTION = "image_encoder", "image_projection"
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)[None, None, None]
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)[None, None, None]
"""Of the pictures that CLIP was trained on, Radford et al. 2021."""


def with_ip_adapter(path: str | Path, scale: float, system: Path) -> Adapter:
    """An IP-Adapter for the U-Nets of Stable Diffusion (Ye et al. 2023, Eq. 5).

    The vision encoder is the folder `image_encoder` beside the file, or that of the system.

    Args:
      path: the adapter's safetensors file.
      scale: of what the picture adds; 0 is the U-Net without it.
      system: folder of the system.

    Returns:
      The adapter. It raises InputError where the file is no IP-Adapter, or one for another
      network or vision encoder.
    """
    path = Path(path)

    def adapter(part, image, by):
        assert isinstance(part.network, Pretrained)
        adapted = ip_adapter(part.network._replace(params={}), path, scale)
        own = adapted.unet.params

        def leaves():
            return unflatten_dict(flatten_dict(part.leaves()) | flatten_dict(own))

        unet = adapted.unet._replace(params={})
        like = unflatten_dict(flatten_dict(part.like) | flatten_dict(own))
        encoder = vision_encoder(path, system)
        check_width(path, adapted.tokens, encoder)
        frozen = {ENCODER: encoder.leaves, PROJECTION: lambda: adapted.tokens.params}
        joined = Part(unet, leaves, like, part.config)
        return Adapted(joined, image_prompt(adapted.tokens, encoder), frozen)

    return adapter


def vision_encoder(path: Path, system: Path) -> Part:
    """The CLIP vision encoder beside an adapter's file, or of a system.

    Raises:
      InputError: there is none, or it is no CLIP vision encoder.
    """
    folders = [path.parent / ENCODER, system / ENCODER]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise InputError(
            f"{path} needs the vision encoder that it was trained with: put its folder "
            f"{ENCODER} beside the file."
        )
    part = open_alone(folder)
    if not isinstance(part.network, Encoder) or not isinstance(part.network.module, CLIPVision):
        raise InputError(f"{folder} is not a CLIP vision encoder, which an IP-Adapter needs.")
    return part


def check_width(path: Path, tokens: Module, encoder: Part) -> None:
    """Refuse a vision encoder of another width than the adapter reads.

    Raises:
      InputError: says both widths.
    """
    vision = encoder.network.module
    assert isinstance(vision, CLIPVision)
    plus = isinstance(tokens.module, Resampler)
    reads = tokens.params["proj_in" if plus else "proj"]["kernel"].shape[0]
    makes = vision.width if plus else vision.projection
    if reads != makes:
        raise InputError(
            f"{path} reads a picture's {'states' if plus else 'embedding'} of width {reads}; its "
            f"vision encoder makes {makes or 'none'}. Give the encoder that it was trained with."
        )


def image_prompt(tokens: Module, encoder: Part) -> Condition:
    """A picture as tokens that the U-Net attends to, under the flag `--ip-image`.

    Its null is an embedding of zeros, and for IP-Adapter Plus the states of a mean picture.

    Args:
      tokens: from the encoder's output to the tokens.
      encoder: a CLIP vision encoder.

    Returns:
      The condition; its raw arrays are the picture as the encoder takes it, and 1 where there is
      one.
    """
    found = encoder.network
    assert isinstance(found, Encoder)
    assert isinstance(found.module, CLIPVision)
    size = found.module.image

    def flags(num: int, ip_image: Path | None = None):
        """Flags.

        Args:
          num: number of samples.
          ip_image: picture that the IP-Adapter reads; its middle square is taken.
        """
        if ip_image is None:
            raise InputError("give --ip-image FILE: the IP-Adapter draws for a given picture.")
        pixels = clip_pixels(ip_image, size)
        given = np.ones(num, np.float32)
        return {"ip_image": np.broadcast_to(pixels, (num, *pixels.shape)), "ip_given": given}

    def encode(frozen: Mapping[str, PyTree], raw: Mapping[str, Any]) -> dict[str, Array]:
        pixels, given = jnp.asarray(raw["ip_image"]), jnp.asarray(raw["ip_given"])
        seen = found.encode(frozen[ENCODER], pixels)
        if isinstance(tokens.module, Resampler):
            states = seen.penultimate
        else:
            states = seen.image_embeds * given[:, None]
        return {"image_tokens": tokens.network(frozen[PROJECTION], states)}

    of = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    null = {"ip_image": np.zeros((size, size, 3), np.float32), "ip_given": np.float32(0)}
    example = {"ip_image": of(size, size, 3), "ip_given": of()}
    return Condition(example, null, flags, encode, own=(ENCODER, PROJECTION))


def clip_pixels(path: str | Path, size: int) -> np.ndarray:
    """A picture as CLIP is given it: its shorter side resized, its middle, normalised.

    Radford et al. 2021; bicubic, as in the released preprocessing.

    Args:
      path: a file that Pillow reads.
      size: S.

    Returns:
      (S, S, 3) float32.

    Raises:
      InputError: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except Exception as error:
        raise InputError(f"{path} is not a picture that can be read: {sentence(error)}") from error
    width, height = (max(size, size * side // min(image.size)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(image, np.float32)[top : top + size, left : left + size]
    return (pixels / 255 - MEAN[0]) / STD[0]
