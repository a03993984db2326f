"""EDM's and EDM2's networks: the reference's numbers, counts, gradients and magnitudes."""

import functools
import json

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from diffjax.models import dhariwal, edm, edm2, network
from diffjax.models.edm_blocks import downsample, upsample
from diffjax.parameterization import make_denoiser
from diffjax.pretrained import load, save_safetensors
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.naming import count, to_params
from diffjax.types import InputError

GOLDEN = {"edm_ddpmpp": "edm", "edm_ncsnpp": "edm", "edm_adm": "edm", "edm2": "edm2"}


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


@functools.cache
def published(name):
    """A golden network with what it was given: model, tensors, (x, sigma, cond), the rest."""
    config, tensors, io = nets.reference(name)
    config = {"architecture": GOLDEN[name], **config}
    architecture = architecture_of(config)
    params = to_params(tensors, architecture.names, shapes(architecture))
    cond = {"label": jnp.asarray(io["in_y"].argmax(1))}
    if "in_augment" in io:
        cond["augment"] = jnp.asarray(io["in_augment"])
    given = jnp.asarray(nhwc(io["in_x"])), jnp.asarray(io["in_sigma"]), cond
    return architecture.finish(params, config), tensors, given, io


@functools.cache
def denoising(name):
    model = published(name)[0]

    def denoise(params, x, sigma, cond):
        denoiser = make_denoiser(model.network, params, model.schedule, model.parameterization)
        with jax.default_matmul_precision("highest"):
            return denoiser(x, sigma, cond).x0

    return jax.jit(denoise)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_reference_s_numbers(name):
    model, _, inputs, io = published(name)
    expected = nhwc(io["out_denoised"])
    got = denoising(name)(model.params, *inputs)
    assert np.abs(got - expected).max() < 5e-6 * np.abs(expected).max()


def test_the_reference_s_log_variance():
    model, _, (_, sigma, _), io = published("edm2")
    u = model.module.apply({"params": model.params}, jnp.log(sigma) / 4, method="uncertainty")
    np.testing.assert_allclose(u, io["out_logvar"], atol=1e-5)


@pytest.mark.parametrize("name", GOLDEN)
def test_round_trip_is_bit_equal(name, tmp_path):
    model, tensors, _, _ = published(name)
    save_safetensors(tmp_path, model)
    from safetensors.numpy import load_file

    written = load_file(tmp_path / "model.safetensors")
    buffers = json.loads((nets.GOLDEN / f"{name}.json").read_text())["buffers"]
    assert written.keys() == tensors.keys() | buffers.keys()
    for key, w in written.items():
        if key in buffers:
            assert list(w.shape) == buffers[key]
        else:
            np.testing.assert_array_equal(w, tensors[key], strict=True)
    again = load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


@pytest.mark.parametrize(
    ("module", "side", "channels", "expected"),
    [
        (edm.ddpmpp_cifar10(), 32, 3, 55_733_891),
        (edm.ncsnpp_cifar10(), 32, 3, 56_397_827),
        (dhariwal.adm_imagenet64(), 64, 3, 295_899_267),
        (edm2.edm2_xs(), 64, 4, 124_713_253),
        (edm2.edm2_s(), 64, 4, 280_212_837),
        (edm2.edm2_m(), 64, 4, 497_807_781),
        (edm2.edm2_l(), 64, 4, 777_498_085),
        (edm2.edm2_xl(), 64, 4, 1_119_283_749),
        (edm2.edm2_xxl(), 64, 4, 1_523_164_773),
    ],
    ids=["ddpmpp", "ncsnpp", "adm", "xs", "s", "m", "l", "xl", "xxl"],
)
def test_number_of_parameters(module, side, channels, expected):
    x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    params = jax.eval_shape(lambda x, t: module.init(jax.random.key(0), x, t), x, t)["params"]
    assert count(params) == expected


# --- tiny networks, in any precision ----------------------------------------------------

TINY = {
    "ddpmpp": edm.SongUNet(
        channels=8, multipliers=(1, 2), blocks=1, num_classes=3, augment_dim=2, dropout=0.5
    ),
    "ncsnpp": edm.ncsnpp_cifar10(channels=8, multipliers=(1, 2), blocks=1, num_classes=3),
    "adm": dhariwal.DhariwalUNet(
        channels=8, multipliers=(1, 2), blocks=1, num_classes=3, head_channels=8, dropout=0.5
    ),
    "edm2": edm2.EDM2UNet(
        channels=8,
        multipliers=(1, 2),
        blocks=1,
        attention_levels=(1,),
        num_classes=3,
        head_channels=8,
        dropout=0.5,
    ),
}


@functools.cache
def tiny(name):
    """Parameters away from the start, where the last layers are 0, and inputs (x, t, cond)."""
    x = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))
    t, cond = jnp.array([-1.0, 0.0, 0.7]), {"label": jnp.array([0, 2, 3])}
    params = jax.jit(TINY[name].init)(jax.random.key(0), x, t, cond)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noise = [0.3 * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(tree, [p + n for p, n in zip(leaves, noise, strict=True)])
    return params, (x, t, cond)


@functools.cache
def applied(name, **options):
    return jax.jit(network(TINY[name].clone(**options)))


@pytest.mark.parametrize("name", TINY)
def test_gradient_is_that_of_finite_differences(name, x64):
    wide = lambda tree: jax.tree.map(  # noqa: E731
        lambda a: np.asarray(a, np.float64) if a.dtype == np.float32 else np.asarray(a), tree
    )
    params, (x, t, cond) = (wide(part) for part in tiny(name))
    module = TINY[name].clone(dtype=jnp.float64)
    target = np.random.default_rng(0).standard_normal(x.shape)

    @jax.jit
    def loss(params, x):
        return jnp.sum(target * network(module)(params, x, t, cond, None))

    gradients = jax.jit(jax.grad(loss, (0, 1)))(params, x)
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda a: rng.standard_normal(a.shape), (params, x))
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), gradients, direction)))
    h = STEP[name]
    at = lambda h: loss(*jax.tree.map(lambda a, d: a + h * d, (params, x), direction))  # noqa: E731
    difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    np.testing.assert_allclose(along, difference, rtol=2e-4)


STEP = {"ddpmpp": 2e-3, "ncsnpp": 2e-3, "adm": 2e-3, "edm2": 1e-4}


@pytest.mark.parametrize("name", TINY)
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(3)))
def test_samples_of_a_batch_do_not_mix(name, order):
    params, inputs = tiny(name)
    order = np.array(order)
    permuted = jax.tree.map(lambda a: a[order], inputs)
    run = applied(name)
    np.testing.assert_allclose(
        run(params, *inputs, None)[order], run(params, *permuted, None), atol=2e-5
    )


@pytest.mark.parametrize("name", TINY)
def test_the_null_label_is_no_label(name):
    params, (x, t, _) = tiny(name)
    run = applied(name)
    null = run(params, x, t, {"label": jnp.full(3, 3)}, None)
    np.testing.assert_allclose(run(params, x, t, None, None), null, atol=1e-6)
    for label in range(3):
        one = run(params, x, t, {"label": jnp.full(3, label)}, None)
        assert float(jnp.abs(one - null).max()) > 1e-3


@pytest.mark.parametrize("name", TINY)
def test_remat_and_bfloat16_change_no_parameter(name):
    params, inputs = tiny(name)
    exact = applied(name)(params, *inputs, None)
    again = applied(name, remat=True)(params, *inputs, None)
    np.testing.assert_allclose(again, exact, atol=2e-5)
    half = applied(name, dtype=jnp.bfloat16)(params, *inputs, None)
    assert half.dtype == jnp.float32
    assert float(jnp.abs(half - exact).max()) < 0.1 * float(jnp.abs(exact).max())
    for options in ({"remat": True}, {"dtype": jnp.bfloat16}):
        init = TINY[name].clone(**options).init
        like = jax.eval_shape(init, jax.random.key(0), *inputs)["params"]
        assert jax.tree.map(jnp.shape, like) == jax.tree.map(jnp.shape, params)
        assert {leaf.dtype for leaf in jax.tree.leaves(like)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", ["ddpmpp", "adm", "edm2"])
def test_dropout_needs_its_key_and_only_then_acts(name):
    params, inputs = tiny(name)
    run = applied(name, remat=True)
    a, b = (run(params, *inputs, jax.random.key(i)) for i in (0, 1))
    assert float(jnp.abs(a - b).max()) > 1e-3


# --- parts ------------------------------------------------------------------------------


def test_resampling_of_one_pair_is_mean_and_repetition():
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    blocks = x.reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(downsample(x), blocks, atol=1e-6)
    np.testing.assert_allclose(upsample(x), x.repeat(2, 1).repeat(2, 2), atol=1e-6)


def test_a_wide_filter_keeps_linear_ramps_inside():
    ramp = jnp.arange(12.0)[None, :, None, None] + 2 * jnp.arange(12.0)[None, None, :, None]
    small = downsample(ramp, (1, 3, 3, 1))[0, 1:-1, 1:-1, 0]
    i, j = np.arange(1, 5)[:, None], np.arange(1, 5)[None, :]
    np.testing.assert_allclose(small, (2 * i + 0.5) + 2 * (2 * j + 0.5), rtol=1e-6)
    large = upsample(ramp, (1, 3, 3, 1))[0, 2:-2, 2:-2, 0]
    i, j = np.arange(2, 22)[:, None], np.arange(2, 22)[None, :]
    np.testing.assert_allclose(large, (i / 2 - 0.25) + 2 * (j / 2 - 0.25), rtol=1e-6)


def test_edm2_layers_keep_the_magnitude():
    a, b = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 64))
    rms = lambda x: float(jnp.sqrt(jnp.mean(x**2)))  # noqa: E731
    key = jax.random.key(1)
    conv = edm2.MPConv(96, (3, 3))
    out, _ = conv.init_with_output(key, a)
    assert rms(out[:, 1:-1, 1:-1]) == pytest.approx(1, abs=0.03)
    assert rms(edm2.mp_silu(a)) == pytest.approx(1, abs=0.02)
    assert rms(edm2.mp_sum(a, b, 0.3)) == pytest.approx(1, abs=0.02)
    both = edm2.mp_cat(a, b[..., :16], 0.3)
    assert rms(both) == pytest.approx(1, abs=0.02)
    share = rms(both[..., 64:]) ** 2 * 16 / (rms(both[..., :64]) ** 2 * 64)
    assert share == pytest.approx((0.3 / 0.7) ** 2, rel=0.05)
    embedding = jax.random.normal(jax.random.key(2), (4, 32))
    for encodes in (True, False):
        block = edm2.Block(64, encodes, heads=2)
        out, _ = block.init_with_output(key, a, embedding)
        assert rms(out) == pytest.approx(1, abs=0.1)


def test_edm2_weights_have_a_direction_and_no_size():
    params, inputs = tiny("edm2")
    scaled = jax.tree_util.tree_map_with_path(
        lambda path, w: 30 * w if path[-1].key == "weight" else w, params
    )
    exact = applied("edm2")(params, *inputs, None)
    scale = float(jnp.abs(exact).max())
    for same in (scaled, edm2.force_norm(params)):
        got = applied("edm2")(same, *inputs, None)
        assert float(jnp.abs(got - exact).max()) < 5e-3 * scale  # epsilon is 1e-4 per layer


def test_forced_norm_is_unit_idempotent_and_leaves_gains():
    params, _ = tiny("edm2")
    once = edm2.force_norm(params)
    flat, twice = flatten_dict(once), flatten_dict(edm2.force_norm(once))
    before = flatten_dict(params)
    for path, w in flat.items():
        if path[-1] == "weight":
            square = jnp.mean(w**2, axis=tuple(range(w.ndim - 1)))
            np.testing.assert_allclose(square, 1, atol=2e-3)
            np.testing.assert_allclose(twice[path], w, rtol=2e-3)
        else:
            np.testing.assert_array_equal(w, before[path])


def test_the_optimizer_ends_at_unit_norm():
    params, _ = tiny("edm2")
    optimizer = optax.chain(optax.sgd(0.1), edm2.forced_weight_norm())
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    expected = edm2.force_norm(jax.tree.map(lambda p: 0.9 * p, params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after, expected)


def test_published_frequencies_get_no_gradient():
    model, _, inputs, _ = published("edm_ncsnpp")
    total = lambda params: jnp.sum(denoising("edm_ncsnpp")(params, *inputs) ** 2)  # noqa: E731
    gradient = jax.grad(total)(model.params)
    np.testing.assert_array_equal(gradient["map_noise"]["frequencies"], 0)


# --- configurations ---------------------------------------------------------------------

SIZE = {"img_resolution": 8, "img_channels": 3, "channel_mult": [1, 2]}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": "edm", **SIZE, "model_chanels": 8}, "model_channels"),
        ({"architecture": "edm", **SIZE, "model_type": "UNet"}, "SongUNet"),
        ({"architecture": "edm_vp", **SIZE, "encoder_type": "stacked"}, "residual"),
        ({"architecture": "edm", **SIZE, "img_resolution": 9}, "multiple of 2"),
        ({"architecture": "edm2", **SIZE, "resample_filter": [1, 2, 1]}, "even length"),
        ({"architecture": "edm2", "img_channels": 4}, "img_resolution"),
    ],
)
def test_a_wrong_configuration_is_a_sentence(config, words):
    with pytest.raises(InputError, match=words):
        architecture_of(config)


@pytest.mark.parametrize(
    ("architecture", "sigma_min", "sigma_max"), [("edm", 0.002, 80), ("edm_ve", 0.02, 100)]
)
def test_range_of_the_noise(architecture, sigma_min, sigma_max):
    song = {"model_type": "SongUNet", "model_channels": 8, "num_blocks": 1}
    model = architecture_of({"architecture": architecture, **SIZE, **song}).finish({}, {})
    assert (model.schedule.t_min, model.schedule.t_max) == (sigma_min, sigma_max)


def test_the_vp_network_is_given_its_step():
    song = {"model_type": "SongUNet", "model_channels": 8, "num_blocks": 1}
    model = architecture_of({"architecture": "edm_vp", **SIZE, **song}).finish({}, {})
    u = 0.4  # sigma^2 = exp(beta_min u + beta_d u^2/2) - 1 at time u
    sigma = jnp.sqrt(jnp.expm1(0.1 * u + 19.9 * u**2 / 2))
    c = model.parameterization(model.schedule, sigma)
    np.testing.assert_allclose(c.c_noise, 999 * u, rtol=1e-5)
    np.testing.assert_allclose([c.c_skip, c.c_out], [1, -sigma], rtol=1e-6)
