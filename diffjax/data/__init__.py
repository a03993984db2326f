"""Sources of examples, and the one pipeline that batches them."""

from diffjax.data.folder import folder
from diffjax.data.pipeline import batches
from diffjax.data.source import Arrays, Source, array, digits, hold, load
from diffjax.data.tfds import tfds

__all__ = [
    "Arrays",
    "Source",
    "array",
    "batches",
    "digits",
    "folder",
    "hold",
    "load",
    "tfds",
]
