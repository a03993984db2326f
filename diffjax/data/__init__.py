"""Sources of examples, and the one pipeline that batches them."""

from diffjax.data.pipeline import batches
from diffjax.data.source import Arrays, Source, array, digits, load

__all__ = ["Arrays", "Source", "array", "batches", "digits", "load"]
