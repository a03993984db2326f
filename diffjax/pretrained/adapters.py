"""Adapters of whole systems: a network joined to the denoiser, and the flags of its picture."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from diffjax import conditioning
from diffjax.conditioning import Condition
from diffjax.errors import InputError
from diffjax.experiment import NOTHING, Loaders
from diffjax.models.controlnet import ControlNet, controlled
from diffjax.models.layers import Dtype
from diffjax.pretrained.architecture import Module, Pretrained
from diffjax.pretrained.pipeline import Part, Pipeline, open_part
from diffjax.pretrained.precision import computing
from diffjax.types import Network, Params


class Adapted(NamedTuple):
    """A denoiser with an adapter.

    Attributes:
      part: both as one network, the parameters of both as one tree.
      condition: the picture that the adapter reads.
      frozen: networks that the condition reads, by name.
    """

    part: Part
    condition: Condition
    frozen: Loaders = NOTHING


Adapter = Callable[[Part, tuple[int, int], int], Adapted]
"""(denoiser, (H, W) of an image in pixels, pixels for each latent) -> both."""


def with_controlnet(folder: str | Path, scale: float, dtype: Dtype = jnp.float32) -> Adapter:
    """A ControlNet for the U-Nets of Stable Diffusion (Zhang et al. 2023, Eq. 4).

    Its picture is kept under guidance.

    Args:
      folder: of diffusers' ControlNetModel.
      scale: of what the ControlNet adds; 0 is the U-Net without it.
      dtype: of its computation.

    Returns:
      The adapter. It raises InputError where the folder holds no ControlNet, or one for another
      network.
    """
    folder = Path(folder)

    def adapter(part, image, by):
        own = computing(open_alone(folder), dtype)
        check_fits(folder, own, part, by)
        base, control = part.network, own.network
        assert isinstance(base, Pretrained)
        assert isinstance(control, Module)
        network = controlled(base.network, of_shared(control.network), scales=scale)

        def leaves():
            return {"base": part.leaves(), "control": own.leaves()}

        like = {"base": part.like, "control": own.like}
        joined = Part(base._replace(network=network), leaves, like, part.config)
        return Adapted(joined, control_image(image, own.config.get("conditioning_channels", 3)))

    return adapter


def open_alone(folder: Path) -> Part:
    """A network that stands in a folder of its own. Errors as of `open_part`."""
    folder = folder.resolve()
    return open_part(Pipeline(folder.parent, "folder", {}, {}), folder.name)


def of_shared(network: Network) -> Network:
    """A ControlNet without the conditions that its U-Net alone reads."""

    def of_its_own(params: Params, x, t, cond, key):
        own = {k: value for k, value in cond.items() if k not in ("guidance", "image_tokens")}
        return network(params, x, t, own, key)

    return of_its_own


def check_fits(folder: Path, own: Part, unet: Part, by: int) -> None:
    """Refuse a network that is no ControlNet, or one for another U-Net.

    Args:
      folder: for the message.
      own: what stands in it.
      unet: what it is joined to.
      by: pixels for each latent.

    Raises:
      InputError: says what does not fit.
    """
    module, kind = own.network.module, own.config.get("_class_name")
    if kind != "ControlNetModel" or unet.config.get("_class_name") != "UNet2DConditionModel":
        raise InputError(
            f"a ControlNetModel is joined to a UNet2DConditionModel; {folder} is a {kind}, for a "
            f"{unet.config.get('_class_name')}."
        )
    assert isinstance(module, ControlNet)
    base, like = flatten_dict(unet.like), flatten_dict(own.like)
    for path, leaf in like.items():
        found = base.get(path)
        if path[0].startswith(("hint", "zero_")) or (found and found.shape == leaf.shape):
            continue
        raise InputError(
            f"the ControlNet of {folder} is for another U-Net: its {'/'.join(path)} has the shape "
            f"{leaf.shape}, the U-Net's {found.shape if found else 'is not there'}."
        )
    factor = 2 ** (len(module.hint) - 1)
    if factor != by:
        raise InputError(
            f"the ControlNet of {folder} is for {factor} pixels a latent; the autoencoder has {by}."
        )


def control_image(image: tuple[int, int], channels: int) -> Condition:
    """The picture that a ControlNet reads, in [0, 1], under the flag `--control-image`.

    Args:
      image: (H, W) in pixels.
      channels: of the picture.
    """
    about = "picture that the ControlNet reads, such as edges or depth."
    given = conditioning.image("control_image", (*image, channels), about)
    return given._replace(
        encode=lambda frozen, raw: {"image": (jnp.asarray(raw["control_image"]) + 1) / 2}
    )
