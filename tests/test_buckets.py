"""Aspect-ratio buckets against their definition, by brute force."""

import numpy as np
import pytest

from diffjax.data.buckets import aspect_buckets, bucket_batches, nearest_buckets
from diffjax.errors import InputError


@pytest.mark.parametrize(("area", "multiple", "smallest"), [(512**2, 64, 256), (1000, 3, 9)])
def test_every_size_that_fits_and_cannot_be_wider(area, multiple, smallest):
    found = {tuple(pair) for pair in aspect_buckets(area, multiple, smallest).tolist()}
    sides = range(smallest, area // smallest + 1, multiple)
    fits = lambda h, w: h * w <= area  # noqa: E731
    widest = {(h, w) for h in sides for w in sides if fits(h, w) and not fits(h, w + multiple)}
    assert found == widest | {(w, h) for h, w in widest}


def test_sdxl():
    """A square of 1024 pixels is among those of its area, and 1:4 is the narrowest."""
    found = aspect_buckets(1024**2, 64, 512)
    assert [1024, 1024] in found.tolist()
    assert max(found[:, 1] / found[:, 0]) == 4


def test_the_nearest_ratio():
    buckets = np.array([[4, 4], [8, 8], [4, 8], [8, 4]])
    sizes = [(100, 100), (300, 200), (100, 141), (100, 142), (10, 1000)]
    assert nearest_buckets(sizes, buckets).tolist() == [1, 3, 1, 2, 2]
    rng = np.random.default_rng(0)
    sizes, buckets = rng.integers(1, 2000, (500, 2)), aspect_buckets(512**2)
    ratio = lambda pair: np.log(pair[1] / pair[0])  # noqa: E731
    far = [[abs(ratio(s) - ratio(b)) for b in buckets] for s in sizes]
    chosen = nearest_buckets(sizes, buckets)
    np.testing.assert_allclose(np.take_along_axis(np.array(far), chosen[:, None], 1)[:, 0],
                               np.min(far, axis=1), atol=1e-9)  # fmt: skip


def test_batches_are_of_one_bucket_and_leave_out_less_than_one_of_each():
    bucket = np.random.default_rng(0).integers(0, 5, 203)
    epochs = [bucket_batches(bucket, 8, seed=1, epoch=i) for i in range(40)]
    for batches in epochs:
        assert (bucket[batches] == bucket[batches[:, :1]]).all()
        assert len(np.unique(batches)) == batches.size
        left = np.setdiff1d(np.arange(203), batches)
        assert (np.bincount(bucket[left], minlength=5) == np.bincount(bucket) % 8).all()
    assert len(np.unique(np.concatenate([b.reshape(-1) for b in epochs]))) == 203
    np.testing.assert_array_equal(epochs[3], bucket_batches(bucket, 8, seed=1, epoch=3))
    assert not np.array_equal(epochs[0], epochs[1])


def test_what_is_refused():
    with pytest.raises(InputError, match="got 300, 64 and 262144"):
        aspect_buckets(512**2, 64, 300)
    with pytest.raises(InputError, match="got 1024, 64 and 262144"):
        aspect_buckets(512**2, 64, 1024)
    with pytest.raises(InputError, match="no bucket holds 8 examples"):
        bucket_batches([0, 1, 2], 8)
