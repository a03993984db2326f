"""Sources and the pipeline: every example once an epoch, batch i a function of i."""

import numpy as np
import pytest

from diffjax import data
from diffjax.types import InputError


def numbered(n=20, size=4):
    x = np.arange(n, dtype=np.float32)[:, None, None, None] * np.ones(
        (1, size, size, 1), np.float32
    )
    x = x + np.arange(size, dtype=np.float32)[None, None, :, None] / 10  # columns differ
    return data.Source(data.Arrays(x=x, label=np.arange(n, dtype=np.int32)), x.shape[1:], n)


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def test_digits_are_the_real_ones():
    source = data.digits()
    assert len(source.examples) == 1797
    assert source.shape == (8, 8, 1)
    first = source.examples[0]
    assert first["label"] == 0
    assert first["x"].dtype == np.float32
    np.testing.assert_array_equal(first["x"][0, :, 0] * 8 + 8, [0, 0, 5, 13, 9, 1, 0, 0])


def test_every_example_once_an_epoch_in_a_new_order():
    batches = take(data.batches(numbered(), 5, seed=1), 8)
    labels = np.concatenate([b["label"] for b in batches])
    for epoch in (labels[:20], labels[20:]):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(20))
    assert (labels[:20] != labels[20:]).any()
    for batch in batches:
        np.testing.assert_array_equal(batch["x"][:, 0, 0, 0], batch["label"])


@pytest.mark.parametrize("flip", [False, True])
def test_batch_i_does_not_depend_on_where_iteration_began(flip):
    whole = take(data.batches(numbered(), 6, seed=3, flip=flip), 12)
    for start in (1, 7):
        for a, b in zip(
            whole[start:], take(data.batches(numbered(), 6, 3, start, flip), 5), strict=False
        ):
            np.testing.assert_array_equal(a["x"], b["x"])
    other = take(data.batches(numbered(), 6, seed=4, flip=flip), 12)
    assert any((a["label"] != b["label"]).any() for a, b in zip(whole, other, strict=True))


def test_flip_mirrors_about_half_left_to_right():
    batches = take(data.batches(numbered(), 20, flip=True), 30)
    first_column = np.concatenate([b["x"][:, 0, 0, 0] - b["label"] for b in batches])
    mirrored = np.isclose(first_column, 0.3, atol=1e-4)
    assert np.isclose(first_column[~mirrored], 0, atol=1e-4).all()
    assert 0.42 < mirrored.mean() < 0.58  # 600 fair coins: 4 standard deviations


def test_array_scales_bytes_to_the_unit_interval(tmp_path):
    x = np.array([0, 255, 51], np.uint8).reshape(3, 1, 1, 1)
    np.savez(tmp_path / "a.npz", x=x, label=np.array([0, 4, 2]))
    source = data.array(tmp_path / "a.npz")
    values = [source.examples[i]["x"].item() for i in range(3)]
    np.testing.assert_allclose(values, [-1, 1, -0.6], atol=1e-6)
    assert source.num_classes == 5


def test_bad_batch_size():
    with pytest.raises(InputError, match="at least 1; got 0"):
        data.batches(numbered(), 0)
