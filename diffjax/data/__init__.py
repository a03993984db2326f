"""Sources of examples, and the one pipeline that batches them."""

from diffjax.data.augment import flip, random_crop, random_shift
from diffjax.data.folder import folder
from diffjax.data.pipeline import arrays_of, batches
from diffjax.data.source import Arrays, Source, array, digits, hold, latents, load
from diffjax.data.tfds import tfds

__all__ = [
    "Arrays",
    "Source",
    "array",
    "arrays_of",
    "batches",
    "digits",
    "flip",
    "folder",
    "hold",
    "latents",
    "load",
    "random_crop",
    "random_shift",
    "tfds",
]
