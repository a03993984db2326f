"""The U-Net: shapes, options that change no parameter, conditions that matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import models
from diffjax.errors import InputError
from diffjax.models import adm_unet, network
from diffjax.models.layers import sinusoidal_embedding
from diffjax.models.per_block_dit import PerBlockDiT
from diffjax.models.resnet import nearest_to

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


EDM = {"channels": 8, "multipliers": (1, 2, 2), "blocks": 0, "attention_levels": ()}
TOKENS = {"width": 16, "depth": 1, "heads": 2, "num_classes": 0, "patch_size": 4}
NETWORKS = {
    "UNet": models.adm_unet(8, (1, 1, 1), 0, ()),
    "Classifier": models.adm_classifier(3, 8, (1, 1, 1), 0, (), head_channels=8),
    "SongUNet": models.SongUNet(**EDM),
    "DhariwalUNet": models.DhariwalUNet(**EDM),
    "EDM2UNet": models.EDM2UNet(**EDM),
    "DiT": models.DiT(**TOKENS),
    "PerBlockDiT": PerBlockDiT(**TOKENS),
    "UViT": models.UViT(**TOKENS),
    "Encoder": models.Encoder(4, (8, 8, 8), 0, groups=4),
}
IMAGE, TIME = jnp.zeros((1, 8, 8, 3)), jnp.zeros(1)


@pytest.mark.parametrize(
    ("x", "t", "words"),
    [
        (IMAGE[:, :6], TIME, "multiples of 4; got 6 x 8"),
        (IMAGE[0], TIME, r"images \(B, H, W, C\); got the shape \(8, 8, 3\)"),
        (IMAGE, jnp.zeros(()), r"one time per sample, \(B,\); got the shape \(\)"),
    ],
    ids=["size", "rank", "time"],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_input_that_a_network_cannot_take_is_a_sentence(name, x, t, words):
    if name == "Encoder" and t.ndim == 0:
        pytest.skip("has no time")
    inputs = (x,) if name == "Encoder" else (x, t)
    with pytest.raises(InputError, match=f"{name} .*{words}"):
        jax.eval_shape(NETWORKS[name].init, jax.random.key(0), *inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_other_channels_than_the_parameters_are_for(name):
    inputs = (IMAGE,) if name == "Encoder" else (IMAGE, TIME)
    module = NETWORKS[name]
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    with pytest.raises(InputError, match=f"{name} are for 3 channels; got an input of 4"):
        jax.eval_shape(module.apply, shapes, jnp.zeros((1, 8, 8, 4)), *inputs[1:])


def test_vectors_that_a_residual_mlp_cannot_take():
    module = models.ResidualMLP(8, 1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 3)), TIME)
    with pytest.raises(InputError, match="are for 3 channels; got an input of 2"):
        jax.eval_shape(module.apply, shapes, jnp.zeros((1, 2)), TIME)
    with pytest.raises(InputError, match=r"vectors \(B, D\); got the shape \(1, 8, 8, 3\)"):
        jax.eval_shape(module.init, jax.random.key(0), IMAGE, TIME)


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(InputError, match="heads must divide its width; got 3 and 16"):
        jax.eval_shape(models.DiT(**TOKENS | {"heads": 3}).init, jax.random.key(0), IMAGE, TIME)


@pytest.mark.parametrize(("size", "to"), [(4, 7), (4, 8), (3, 7), (1, 3)])
def test_resizing_to_a_size_takes_the_nearest_pixel_below(size, to):
    x = jnp.arange(float(size))[None, :, None, None] * jnp.ones((1, 1, 2, 1))
    expected = np.floor(np.arange(to) * size / to)
    np.testing.assert_array_equal(nearest_to(x, (to, 4))[0, :, 0, 0], expected)


def test_odd_sizes_pass_where_the_way_up_resizes_to_the_skips():
    """Even sizes are as ever, and odd ones end at their own size."""
    module = models.adm_unet(8, (1, 1, 1), 0, ())
    free = module.clone(resize=nearest_to)
    shapes = jax.eval_shape(module.init, jax.random.key(0), IMAGE, TIME)
    g = np.random.default_rng(0)
    params = jax.tree.map(lambda s: np.float32(0.3 * g.standard_normal(s.shape)), shapes)
    x = jnp.asarray(g.standard_normal((1, 8, 8, 3)), jnp.float32)
    a, b = (jax.jit(m.apply)(params, x, TIME) for m in (module, free))
    np.testing.assert_array_equal(a, b)
    odd = jax.eval_shape(free.apply, params, jnp.zeros((1, 7, 5, 3)), TIME)
    assert odd.shape == (1, 7, 5, 3)
