"""Frechet distance against closed forms and against its textbook formula."""

import numpy as np
import pytest
import scipy.linalg

from diffjax import evaluation
from diffjax.errors import InputError
from diffjax.evaluation import frechet
from diffjax.media import image as images


def random_covariance(rng, d):
    a = rng.standard_normal((d, d))
    return a @ a.T / d


def test_isotropic_gaussians_have_a_closed_form():
    d = 5
    got = evaluation.frechet_distance(np.zeros(d), 4 * np.eye(d), np.ones(d), 9 * np.eye(d))
    np.testing.assert_allclose(got, d + d * (2 - 3) ** 2)


@pytest.mark.parametrize("decades", [0, 2, 5, 7, 9, 30])
def test_the_nuclear_norm_of_a_known_spectrum(decades):
    """U diag(s) V^T has the norm sum s, whether its values are alike or down to rounding."""
    rng = np.random.default_rng(decades)
    u, v = (np.linalg.qr(rng.normal(size=(60, 60)))[0] for _ in range(2))
    s = np.logspace(0, -decades, 60)
    np.testing.assert_allclose(frechet.nuclear_norm(u * s @ v.T), s.sum(), rtol=1e-8)


def test_the_nuclear_norm_of_a_wide_and_of_a_singular_matrix():
    a = np.random.default_rng(0).normal(size=(3, 7))
    wanted = np.sqrt(np.maximum(np.linalg.eigvalsh(a @ a.T), 0)).sum()
    np.testing.assert_allclose(frechet.nuclear_norm(a), wanted, rtol=1e-12)
    assert frechet.nuclear_norm(np.zeros((4, 4))) == 0


def test_agrees_with_the_matrix_square_root():
    rng = np.random.default_rng(0)
    a, b = random_covariance(rng, 6), random_covariance(rng, 6)
    m = rng.standard_normal(6)
    expected = m @ m + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    np.testing.assert_allclose(evaluation.frechet_distance(m, a, 0 * m, b), expected, rtol=1e-9)


def test_singular_covariances_are_finite_and_zero_on_themselves():
    features = np.random.default_rng(0).standard_normal((4, 10))  # rank 3 in 10 dimensions
    mean, covariance = evaluation.moments(features)
    assert evaluation.frechet_distance(mean, covariance, mean, covariance) < 1e-9


def test_one_example_has_no_covariance():
    with pytest.raises(InputError, match="N of at least 2"):
        evaluation.moments(np.zeros((1, 3)))


def test_uint8_inverts_the_scaling_of_data_and_clips():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(images.to_uint8(levels / np.float32(127.5) - 1), levels)
    np.testing.assert_array_equal(images.to_uint8(np.array([-3.0, 3.0])), [0, 255])


def test_grid_puts_images_row_by_row():
    tiles = np.arange(1, 7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 1), np.uint8)
    sheet = images.grid(tiles, columns=3)
    assert sheet.shape == (2 * 65 + 1, 3 * 65 + 1, 1)
    assert sheet[10, 10, 0] == 1
    assert sheet[10, 140, 0] == 3
    assert sheet[100, 10, 0] == 4
    assert sheet[0, 0, 0] == 255
