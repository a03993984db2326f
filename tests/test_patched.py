"""A network at a fraction of the resolution: what it sees, and what comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models import adm_unet
from diffjax.models.patched import Patched


class Pointwise(nn.Module):
    """Whatever a function makes of the input."""

    function: callable

    def __call__(self, x, t, cond, train):
        return self.function(x)


def apply(function, x, size=2):
    return Patched(Pointwise(function), size).apply({}, x, jnp.zeros(len(x)))


def test_the_network_sees_a_square_of_pixels_as_one():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    seen = []
    out = apply(lambda h: seen.append(h) or h, x)
    assert seen[0].shape == (2, 2, 3, 12)
    corner = jnp.concatenate([x[1, 2, 4], x[1, 2, 5], x[1, 3, 4], x[1, 3, 5]])
    np.testing.assert_array_equal(seen[0][1, 1, 2], corner)
    np.testing.assert_array_equal(out, x)


def test_an_output_of_more_channels_has_them_per_pixel():
    out = apply(lambda h: jnp.concatenate([h, h], -1), jnp.ones((1, 4, 4, 3)))
    assert out.shape == (1, 4, 4, 6)


def test_a_patch_that_does_not_tile_is_refused():
    with pytest.raises(InputError, match="28x28"):
        apply(lambda h: h, jnp.zeros((1, 28, 28, 1)), size=3)


def test_a_unet_within_keeps_shape_and_conditions():
    unet = adm_unet(8, (1, 2), 1, (1,), num_classes=3, groups=None)
    module, x = Patched(unet), jnp.zeros((2, 8, 8, 1))
    cond = {"label": jnp.array([0, 3])}
    shapes = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), x, jnp.ones(2), cond)
    )
    assert shapes[0].shape == x.shape
    assert shapes[1]["params"]["network"]["conv_in"]["kernel"].shape == (3, 3, 4, 8)
