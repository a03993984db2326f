"""Any network of images at a fraction of their resolution."""

from flax import linen as nn

from diffjax.models.patches import patchify, unpatchify
from diffjax.types import Array, Cond


class Patched(nn.Module):
    """A network that sees each patch of pixels as one pixel of more channels.

    Space to depth on the way in and depth to space on the way out (Shi et al. 2016, Eq. 4):
    nothing is lost, and what stood at the full resolution costs 1/size^2.

    Attributes:
      network: a module of `__call__(x, t, cond, train)` with as many channels out as in, or a
        multiple of them.
      size: height and width of a patch.
    """

    network: nn.Module
    size: int = 2

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """The raw output.

        Args:
          x: images (B, H, W, C); the size divides H and W.
          t: times (B,).
          cond: as the network takes it.
          train: whether dropout acts.

        Returns:
          (B, H, W, C), or the same multiple of C as the network's.
        """
        batch, height, width, _ = x.shape
        grid = (height // self.size, width // self.size)
        h = patchify(x, self.size).reshape(batch, *grid, -1)
        h = self.network(h, t, cond, train)
        return unpatchify(h.reshape(batch, -1, h.shape[-1]), height, width, self.size)
