"""Writers and pictures of samples, a medium a file."""

from diffjax.media.image import arrays, decoded, grid, pixels, save_gif, save_png, to_uint8

__all__ = ["arrays", "decoded", "grid", "pixels", "save_gif", "save_png", "to_uint8"]
