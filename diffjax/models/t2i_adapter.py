"""T2I-Adapter (Mou et al. 2023): features of a picture for each level of a U-Net.

Layers have the names that its published files use.
"""

from flax import linen as nn

from diffjax.models.pixels import pixel_unshuffle
from diffjax.types import Array


class T2IAdapter(nn.Module):
    """Residual blocks over space-to-channels of a picture, one feature for each level.

    Attributes:
      widths: of each level.
      blocks: residual blocks of each level.
      factor: of the space to channels.
      halved: levels that begin with half the resolution.
    """

    widths: tuple[int, ...]
    blocks: int
    factor: int
    halved: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        """x (B, H, W, C) in [0, 1] to features, each (B, h, w, width)."""
        place = "adapter."
        x = pixel_unshuffle(x, self.factor)
        x = nn.Conv(self.widths[0], (3, 3), padding=1, name=place + "conv_in")(x)
        features = []
        for i, width in enumerate(self.widths):
            if i in self.halved:
                padding = tuple((0, n % 2) for n in x.shape[1:3])
                x = nn.avg_pool(x, (2, 2), (2, 2), padding, count_include_pad=False)
            if x.shape[-1] != width:
                x = nn.Conv(width, (1, 1), name=f"{place}body.{i}.in_conv")(x)
            for j in range(self.blocks):
                name = f"{place}body.{i}.resnets.{j}"
                h = nn.relu(nn.Conv(width, (3, 3), padding=1, name=name + ".block1")(x))
                x = x + nn.Conv(width, (1, 1), name=name + ".block2")(h)
            features.append(x)
        return tuple(features)
