"""Canny's edges on images whose edges are known."""

import numpy as np
import pytest

from diffjax import data
from diffjax.data.canny import canny, edges, with_edges
from diffjax.errors import InputError


def test_a_step_is_one_line_where_it_is():
    image = np.where(np.arange(16) < 7, -1.0, 1.0)[None].repeat(12, 0)
    found = canny(image)
    assert (found.sum(axis=1) == 1).all()
    assert set(np.nonzero(found)[1]) <= {6, 7}
    np.testing.assert_array_equal(canny(image.T), found.T)
    np.testing.assert_array_equal(canny(3 * image + 5), found)
    assert not canny(np.full((8, 8), 0.3)).any()


def test_a_disk_has_the_edge_of_a_circle():
    i, j = np.mgrid[:48, :48] - 23.5
    radius = np.hypot(i, j)
    found = canny(np.clip(15.5 - radius, 0, 1))
    assert np.abs(radius[found] - 15).max() < 1.2
    angles = np.sort(np.arctan2(i, j)[found])
    assert np.diff(angles).max() < 0.15  # without a gap of more than two pixels


def test_weak_edges_stay_where_they_touch_strong_ones():
    """A line whose contrast fades, and the same faint contrast on its own."""
    contrast = np.linspace(1, 0.2, 40)[:, None]
    image = np.zeros((40, 40))
    image[:, 10:] += contrast
    image[:15, 30:] += 0.2
    found = canny(image, low=0.15, high=0.6)
    assert found[:, 8:12].any(axis=1).all()
    assert not found[:, 28:33].any()
    alone = canny(image, low=0.15, high=0.15)
    assert alone[2:12, 28:33].any(axis=1).all()


def test_edges_of_a_source():
    source = with_edges(data.digits(), edges(size=32))
    example = source.examples[3]
    assert example["edges"].shape == (32, 32, 1)
    assert set(np.unique(example["edges"])) == {-1, 1}
    np.testing.assert_array_equal(example["x"], data.digits().examples[3]["x"])
    assert source.examples[3]["edges"] is example["edges"]
    # The lines lie where the digit changes: on the pixels that border on another brightness.
    x = example["x"][..., 0].repeat(4, 0).repeat(4, 1)
    change = np.hypot(*np.gradient(np.pad(x, 4, mode="edge")))[4:-4, 4:-4]
    wide = np.max([np.roll(change, (i, j), (0, 1)) for i in (-2, 0, 2) for j in (-2, 0, 2)], 0)
    assert wide[example["edges"][..., 0] > 0].min() > 0


def test_bad_thresholds_are_refused():
    with pytest.raises(InputError, match="low <= high"):
        canny(np.eye(8), low=0.5, high=0.2)
    with pytest.raises(InputError, match="sigma > 0"):
        canny(np.eye(8), sigma=0.0)
