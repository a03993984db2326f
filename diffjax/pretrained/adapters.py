"""Adapters of whole systems: a network joined to the denoiser, and the flags of its picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from diffjax.conditioning import Condition
from diffjax.errors import InputError
from diffjax.experiment import NOTHING, Loaders
from diffjax.media.image import load_image
from diffjax.models.controlnet import ControlNet, controlled
from diffjax.models.layers import Dtype
from diffjax.pretrained.architecture import Pretrained
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


def with_controlnets(
    given: Sequence[tuple[str | Path, float]], dtype: Dtype = jnp.float32
) -> Adapter:
    """ControlNets for the U-Nets of Stable Diffusion (Zhang et al. 2023, Eq. 4).

    What they add is scaled and summed. Their pictures are kept under guidance.

    Args:
      given: a folder of diffusers' ControlNetModel for each, and the scale of what it adds; 0 is
        the U-Net without it.
      dtype: of their computation.

    Returns:
      The adapter. It raises InputError where a folder holds no ControlNet, or one for another
      network.
    """
    folders, scales = [Path(folder) for folder, _ in given], tuple(scale for _, scale in given)

    def adapter(part, image, by):
        own = [computing(open_alone(folder), dtype) for folder in folders]
        for folder, control in zip(folders, own, strict=True):
            check_fits(folder, control, part, by)
        base, controls = part.network, [of_shared(control.network.network) for control in own]
        assert isinstance(base, Pretrained)
        network = controlled(base.network, *controls, scales=scales)

        def leaves():
            return {"base": part.leaves(), "control": one_or_all([c.leaves() for c in own])}

        like = {"base": part.like, "control": one_or_all([control.like for control in own])}
        joined = Part(base._replace(network=network), leaves, like, part.config)
        channels = [control.config.get("conditioning_channels", 3) for control in own]
        return Adapted(joined, control_images(image, channels))

    return adapter


def one_or_all(values: list) -> Any:
    """The value of one ControlNet, or a list of those of several."""
    return values[0] if len(values) == 1 else values


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


def control_images(size: tuple[int, int], channels: Sequence[int]) -> Condition:
    """The pictures that ControlNets read, in [0, 1], under the flag `--control-image`.

    Args:
      size: (H, W) in pixels.
      channels: of the picture of each.
    """
    n = len(channels)
    names = ["control_image"] if n == 1 else [f"control_image_{i}" for i in range(n)]

    def flags(num: int, control_image: list[Path] = []):  # noqa: B006
        """Flags.

        Args:
          num: number of samples.
          control_image: picture that the ControlNet reads, such as edges or depth; one for each, in
            their order.
        """
        if len(control_image) != n:
            many = f"{n} of them, one for each ControlNet; got {len(control_image)}"
            what = many if n > 1 or control_image else "this model draws for a given picture"
            raise InputError(f"give --control-image FILE: {what}.")
        found = [load_image(f, size, c) for f, c in zip(control_image, channels, strict=True)]
        return {k: np.broadcast_to(a, (num, *a.shape)) for k, a in zip(names, found, strict=True)}

    def encode(frozen, raw):
        pictures = tuple((jnp.asarray(raw[name]) + 1) / 2 for name in names)
        return {"image": pictures[0] if n == 1 else pictures}

    shapes = zip(names, [(*size, c) for c in channels], strict=True)
    example = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes}
    return Condition(example, None, flags, encode)
