"""An autoencoder as two functions, which is all that diffusion of its latents needs of it."""

from collections.abc import Callable
from typing import NamedTuple

from diffjax.types import Array, Params


class Autoencoder(NamedTuple):
    """An autoencoder of a run or of a published folder.

    Attributes:
      encode: (params, x (B, ...) in [-1, 1]) -> (mean, logvar) of the latents; logvar is -inf where
        they are points, such as those before a codebook.
      decode: (params, latents) -> x.
      shape: of the latents of one x.
    """

    encode: Callable[[Params, Array], tuple[Array, Array]]
    decode: Callable[[Params, Array], Array]
    shape: tuple[int, ...]
