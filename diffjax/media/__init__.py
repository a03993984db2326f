"""Writers and pictures of samples, a medium a file."""

from diffjax.media.image import arrays, decoded, grid, pixels, save_gif, save_png, to_uint8
from diffjax.media.stages import small_first

__all__ = ["arrays", "decoded", "grid", "pixels", "save_gif", "save_png", "small_first", "to_uint8"]
