"""Sources of examples, augmentations, and the one pipeline that batches them."""

from diffjax.data.augment import flip, random_crop, random_shift
from diffjax.data.buckets import aspect_buckets, bucket_batches, nearest_buckets
from diffjax.data.check import check
from diffjax.data.embedded import embedded
from diffjax.data.emoji import emoji, emoji_folder, one_caption
from diffjax.data.folder import folder
from diffjax.data.mixed import mixed
from diffjax.data.npz import array, latents
from diffjax.data.own import images
from diffjax.data.pipeline import arrays_of, batches
from diffjax.data.resize import reduced, smaller, with_small
from diffjax.data.source import (
    Arrays,
    Examples,
    Source,
    cache_in_memory,
    digits,
    load,
    without_last,
)
from diffjax.data.tfds import tfds

__all__ = [
    "Arrays",
    "Examples",
    "Source",
    "array",
    "arrays_of",
    "aspect_buckets",
    "batches",
    "bucket_batches",
    "cache_in_memory",
    "check",
    "digits",
    "embedded",
    "emoji",
    "emoji_folder",
    "flip",
    "folder",
    "images",
    "latents",
    "load",
    "mixed",
    "nearest_buckets",
    "one_caption",
    "random_crop",
    "random_shift",
    "reduced",
    "smaller",
    "tfds",
    "with_small",
    "without_last",
]
