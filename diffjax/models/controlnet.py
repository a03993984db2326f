"""ControlNet (Zhang et al. 2023): a copy of a U-Net's way down that reads a picture."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.patches import patchify
from diffjax.models.resnet import Style
from diffjax.models.unet import UNet
from diffjax.models.unet_conditions import condition
from diffjax.types import Array, Cond, Network, Params, Scalar


class Hint(nn.Module):
    """Convolutions from a picture to the output of a U-Net's first layer; the last begins at zero.

    Attributes:
      style: of the U-Net.
      features: channels of the result.
      widths: of the layers between; each but the first halves the resolution.
    """

    style: Style
    features: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, picture: Array) -> Array:
        """picture (B, f H, f W, C) to (B, H, W, features), f = 2^(len(widths) - 1)."""
        h = nn.silu(self.style.conv(self.widths[0], "conv_in")(picture))
        for i, width in enumerate(self.widths[1:]):
            h = nn.silu(self.style.conv(h.shape[-1], f"conv_{i}")(h))
            h = nn.silu(self.style.conv(width, f"down_{i}", strides=2)(h))
        return self.style.conv(self.features, "conv_out", kernel_init=nn.initializers.zeros)(h)


class ControlNet(UNet):
    """A U-Net's way down and middle, whose outputs leave through layers that begin at zero.

    Zhang et al. 2023, section 3.1: the picture enters after the first layer, and what leaves is
    added to the skips and to the middle of the U-Net that the layers are a copy of. With all of
    it zero at first, that U-Net draws what it drew. `controlnet_for` makes one for a U-Net.

    Attributes:
      hint: widths of the layers that read the picture, see `Hint`.
      patch: side of the square of pixels that x's U-Net sees as one, see `Patched`.
      pooled: whether each residual is its mean over the pixels.
    """

    hint: tuple[int, ...] = (16, 32, 96, 256)
    patch: int = 1
    pooled: bool = False

    @nn.compact
    def __call__(
        self, x: Array, t: Array, cond: Cond = None, train: bool = False
    ) -> tuple[Array, ...]:
        """The residuals.

        Args:
          x: what the U-Net is given, (B, H, W, C).
          t: times (B,), as the U-Net takes them.
          cond: `image` (B, f H, f W, C'), f = 2^(len(hint) - 1) / patch, and what else the U-Net
            takes.
          train: whether dropout acts.

        Returns:
          One residual for each skip of the U-Net, in the order of its way down, and one for its
          middle.
        """
        b, height, width, _ = x.shape
        if self.patch > 1:
            grid = (b, height // self.patch, width // self.patch, -1)
            x = patchify(x, self.patch).reshape(grid)
        picture = self.picture(x, cond)

        def add(h):
            return h + Hint(self.style, h.shape[-1], self.hint, name="hint")(picture)

        self.check(x, t)
        _, h, skips = self.lower(x, t, cond, train, self.embed(t, cond), hint=add)
        residuals = []
        for i, skip in enumerate([*skips, h]):
            options = {"kernel_init": nn.initializers.zeros, "dtype": self.style.dtype}
            residuals.append(nn.Dense(skip.shape[-1], name=f"zero_{i}", **options)(skip))
        if self.pooled:
            residuals = [r.mean((1, 2), keepdims=True) for r in residuals]
        return tuple(residuals)

    def picture(self, x: Array, cond: Cond) -> Array:
        """The picture among the conditions.

        Raises:
          InputError: there is none, or it has another size than `hint` leads from.
        """
        picture, factor = condition(cond, "image"), 2 ** (len(self.hint) - 1)
        wanted = (x.shape[0], factor * x.shape[1], factor * x.shape[2])
        if picture.ndim != 4 or picture.shape[:3] != wanted:
            raise InputError(
                f"this ControlNet takes cond['image'] ({', '.join(map(str, wanted))}, C); got the "
                f"shape {picture.shape}. Resize the picture."
            )
        return picture


def controlnet_for(unet: UNet, **attributes: Any) -> ControlNet:
    """A ControlNet whose trunk has the layers of a U-Net, and their names.

    Args:
      unet: the U-Net.
      **attributes: `hint`, `patch` and `pooled` of `ControlNet`.

    Returns:
      The ControlNet.
    """
    names = UNet.__dataclass_fields__.keys() - {"parent", "name", "up", "out_channels"}
    return ControlNet(**{name: getattr(unet, name) for name in names}, up=(), **attributes)


def controlled(
    base: Network, *controls: Network, scales: Scalar | tuple[Scalar, ...] = 1.0
) -> Network:
    """A U-Net with ControlNets, whose residuals are scaled and summed.

    Args:
      base: the U-Net's; frozen while a ControlNet is trained.
      *controls: the networks of the ControlNets; cond["image"] is the picture of the one, or a
        sequence of one for each of several.
      scales: of each, or one of all; may be traced. 0 draws what the U-Net draws.

    Returns:
      A network of the parameters {"base": ..., "control": of the one, or a sequence}.
    """

    def network(params, x, t, cond, key):
        several = len(controls) > 1
        each = params["control"] if several else [params["control"]]
        pictures = cond["image"] if several else [condition(cond, "image")]
        factors = scales if isinstance(scales, tuple) else (scales,) * len(controls)
        rest = {name: value for name, value in cond.items() if name != "image"}
        made = [
            jax.tree.map(lambda r, f=f: f * r, control(own, x, t, rest | {"image": picture}, key))
            for control, own, picture, f in zip(controls, each, pictures, factors, strict=True)
        ]
        residuals = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *made)
        return base(params["base"], x, t, rest | {"residuals": residuals}, key)

    return network


def guess_scales(residuals: int) -> list[float]:
    """Factors of the residuals where there is no prompt: 0.1 for the first, rising to 1.

    Equal ratios, as in the released code of Zhang et al. 2023 ("guess mode").
    """
    return [10 ** (i / (residuals - 1) - 1) for i in range(residuals)]


def from_zero(params: Params, base: Params) -> Params:
    """Parameters of a ControlNet as differences from its U-Net's: zero where the two share a leaf.

    So that a ControlNet begins as a copy of a U-Net that is not at hand when it is initialised,
    and what is trained is `params` in `upon(params, base)`.

    Args:
      params: of a new ControlNet.
      base: of the U-Net, or shapes.

    Returns:
      Parameters.
    """
    return _where_shared(params, base, lambda own, its: jnp.zeros_like(own))


def upon(params: Params, base: Params) -> Params:
    """Parameters of a ControlNet from its differences to its U-Net: their sum where both have one.

    Args:
      params: from `from_zero`, or trained since.
      base: of the U-Net.

    Returns:
      Parameters.
    """
    return _where_shared(params, base, lambda own, its: own + its)


def _where_shared(params: Params, base: Params, change: Callable) -> Params:
    """`change` applied to the leaves that both trees have; the others of `params` as they are."""
    if not isinstance(params, Mapping):
        return change(params, base)
    return {
        name: _where_shared(value, base[name], change) if name in base else value
        for name, value in params.items()
    }
