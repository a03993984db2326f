"""Normal draws: JAX's own numbers, bit for bit, however they are computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import sample_keys
from diffjax.normals import normals

KEYS = sample_keys(jax.random.key(3), 5)


def of_jax(step, shape, dtype):
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, step), shape, dtype)  # noqa: E731
    return np.stack([draw(jax.random.clone(key)) for key in KEYS])


@pytest.mark.parametrize("shape", [(), (1,), (2, 7, 3), (1, 32, 33, 3)], ids=str)
@pytest.mark.parametrize("step", [0, 1, 999, 2**20])
def test_bits_of_jax(shape, step):
    draw = jax.jit(normals, static_argnums=(2, 3))
    got = draw(KEYS, step, shape, np.dtype("float32"))
    np.testing.assert_array_equal(got, of_jax(step, shape, np.dtype("float32")))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_bits_of_jax_in_half_precision(dtype):
    got = normals(KEYS, jnp.asarray(4), (3, 2), np.dtype(dtype))
    np.testing.assert_array_equal(got, of_jax(4, (3, 2), np.dtype(dtype)))


@pytest.mark.usefixtures("x64")
def test_bits_of_jax_in_double_precision():
    got = normals(KEYS, jnp.asarray(4), (3, 2), np.dtype("float64"))
    np.testing.assert_array_equal(got, of_jax(4, (3, 2), np.dtype("float64")))


def test_bits_of_another_generator():
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 4)
    got = normals(keys, jnp.asarray(2), (3, 5), np.dtype("float32"))
    assert got.shape == (4, 3, 5)
    assert np.all(np.isfinite(got))
    assert len(np.unique(got)) == got.size
