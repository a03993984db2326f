"""The U-Net: shapes, options that change no parameter, conditions that matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import adm_unet, network
from diffjax.models.layers import sinusoidal_embedding

SMALL = {
    "channels": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention_levels": (1,),
    "head_channels": 8,
}


@functools.cache
def make(**kwargs):
    module = adm_unet(**{**SMALL, **kwargs})
    x = jax.random.normal(jax.random.key(7), (3, 8, 8, 2))
    cond = {"label": jnp.zeros(x.shape[0], int)} if module.num_classes else None
    params = jax.jit(module.init)(jax.random.key(0), x, jnp.zeros(x.shape[0]), cond)["params"]
    # The last layers start at zero; away from there every input matters.
    noise = jax.random.normal(jax.random.key(1), (sum(p.size for p in jax.tree.leaves(params)),))
    leaves, tree = jax.tree.flatten(params)
    parts = jnp.split(noise, np.cumsum([p.size for p in leaves])[:-1])
    leaves = [p + 0.2 * n.reshape(p.shape) for p, n in zip(leaves, parts, strict=True)]
    return jax.jit(network(module)), jax.tree.unflatten(tree, leaves), x


@pytest.mark.exhaustive
def test_a_new_network_outputs_zero():
    net, params, x = make()
    last = jax.tree.map(jnp.zeros_like, params["conv_out"])  # as it is initialised
    np.testing.assert_array_equal(
        net({**params, "conv_out": last}, x, jnp.full(3, 5.0), None, None), 0
    )
    module = adm_unet(**SMALL)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, jnp.zeros(3))["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda s: s.shape, shapes)


@pytest.mark.exhaustive
@pytest.mark.parametrize("out", [None, 4])
def test_shapes(out):
    net, params, x = make(out_channels=out)
    y = net(params, x, jnp.zeros(3), None, None)
    assert y.shape == (3, 8, 8, out or 2)
    assert y.dtype == jnp.float32


@pytest.mark.exhaustive
def test_samples_of_a_batch_do_not_mix():
    net, params, x = make()
    t, order = jnp.array([1.0, 500.0, 900.0]), jnp.array([2, 0, 1])
    np.testing.assert_allclose(
        net(params, x, t, None, None)[order], net(params, x[order], t[order], None, None), atol=1e-4
    )


@pytest.mark.exhaustive
def test_time_and_label_matter_and_the_null_label_is_one_more():
    net, params, x = make(num_classes=3)
    call = lambda t, label: net(  # noqa: E731
        params, x, jnp.full(3, t), {"label": jnp.full(3, label)}, None
    )
    outputs = [call(1.0, 0), call(500.0, 0), call(1.0, 2), call(1.0, 3)]
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert float(jnp.abs(a - b).max()) > 1e-3
    assert params["embedding"]["label"]["embedding"].shape[0] == 4


@pytest.mark.exhaustive
def test_dropout_needs_its_key_and_only_then_acts():
    net, params, x = make(dropout=0.5)
    call = lambda key: net(params, x, jnp.zeros(3), None, key)  # noqa: E731
    np.testing.assert_array_equal(call(None), call(None))
    a, b = call(jax.random.key(0)), call(jax.random.key(1))
    assert float(jnp.abs(a - b).max()) > 1e-3


@pytest.mark.exhaustive
def test_bfloat16_shares_parameters_and_is_close():
    net, params, x = make()
    half, other, _ = make(dtype=jnp.bfloat16)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, other)
    exact, rough = (f(params, x, jnp.full(3, 100.0), None, None) for f in (net, half))
    assert float(jnp.abs(exact - rough).max() / jnp.abs(exact).max()) < 0.1


def test_embedding_tells_times_apart_and_has_unit_pairs():
    e = sinusoidal_embedding(jnp.array([0.0, 1.0, 999.0]), 16)
    np.testing.assert_allclose(e[:, :8] ** 2 + e[:, 8:] ** 2, 1, atol=1e-5)
    np.testing.assert_allclose(e[0], np.r_[np.ones(8), np.zeros(8)], atol=1e-6)
    np.testing.assert_allclose(e[1, 0], np.cos(1), rtol=1e-5)
