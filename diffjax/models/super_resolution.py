"""A network that draws a large picture from a small one: Ho et al. 2022 (CDM)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.types import Array, Cond

SCALE = 10.0  # a level is in [0, 1), and the embedding of a number is best from 1 to 10


class SuperResolution(nn.Module):
    """A network that is shown a small picture beside x, enlarged to the size of x.

    The enlargement is bilinear, and the two lie side by side in the channels.

    Attributes:
      module: a module of `__call__(x, t, cond, train)` for as many channels as x and the picture
        have together, whose output has those of x; it reads the level, as
        `TwoTimes(unet, ("small_level",))` does.
      picture: its name among the conditions, where f"{picture}_level" is its level.
    """

    module: nn.Module
    picture: str = "small"

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """The raw output, of cond[picture] (B, h, w, C) and of its level (B,) in [0, 1)."""
        level = f"{self.picture}_level"
        missing = [name for name in (self.picture, level) if name not in (cond or {})]
        if missing:
            raise InputError(
                f"this network enlarges a picture and needs cond[{missing[0]!r}]; got the "
                f"conditions {sorted(cond or {})}."
            )
        others = {name: value for name, value in cond.items() if name != self.picture}
        small = cond[self.picture].astype(x.dtype)
        large = jax.image.resize(small, (*x.shape[:3], small.shape[-1]), "bilinear")
        both = jnp.concatenate([x, large], axis=-1)
        return self.module(both, t, others | {level: SCALE * cond[level]}, train)
