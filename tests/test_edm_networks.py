"""EDM's and EDM2's networks: the reference's numbers, counts, gradients and magnitudes."""

import functools
import json
from pathlib import Path

import chex
import hypothesis
import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import settings
from hypothesis import strategies as st
from tiny import check_forms

from diffjax.errors import InputError
from diffjax.models import dhariwal, edm, edm2, network
from diffjax.models.edm_blocks import downsample, one_hot_label, upsample
from diffjax.models.fourier import FourierFeatures, MPFourier
from diffjax.models.stacking import stack_blocks, unstack_blocks
from diffjax.parameterization import make_denoiser
from diffjax.pretrained import load, save_safetensors
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.naming import count, to_params
from diffjax.run import config
from diffjax.run.state import training_loss

GOLDEN = {"edm_ddpmpp": "edm", "edm_ncsnpp": "edm", "edm_adm": "edm", "edm2": "edm2"}


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


@functools.cache
def published(name):
    """A golden network with what it was given: model, tensors, (x, sigma, cond), the rest."""
    described, tensors, io = nets.reference(name)
    described = {"architecture": GOLDEN[name], **described}
    architecture = architecture_of(described)
    params = to_params(tensors, architecture.names, shapes(architecture))
    cond = {"label": jnp.asarray(io["in_y"].argmax(1))}
    if "in_augment" in io:
        cond["augment"] = jnp.asarray(io["in_augment"])
    inputs = jnp.asarray(nhwc(io["in_x"])), jnp.asarray(io["in_sigma"]), cond
    return architecture.finish(params, described), tensors, inputs, io


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
    chex.assert_trees_all_equal(again.params, model.params)


@pytest.mark.parametrize(
    ("module", "side", "channels", "expected"),
    [
        (edm.ddpmpp_cifar10(), 32, 3, 55_733_891),
        (edm.ncsnpp_cifar10(), 32, 3, 56_397_827),
        (dhariwal.adm_imagenet64(), 64, 3, 295_899_267),
        (edm2.edm2_xs(), 64, 4, 124_713_253),
        pytest.param(edm2.edm2_s(), 64, 4, 280_212_837, marks=pytest.mark.exhaustive),
        pytest.param(edm2.edm2_m(), 64, 4, 497_807_781, marks=pytest.mark.exhaustive),
        pytest.param(edm2.edm2_l(), 64, 4, 777_498_085, marks=pytest.mark.exhaustive),
        pytest.param(edm2.edm2_xl(), 64, 4, 1_119_283_749, marks=pytest.mark.exhaustive),
        pytest.param(edm2.edm2_xxl(), 64, 4, 1_523_164_773, marks=pytest.mark.exhaustive),
    ],
    ids=["ddpmpp", "ncsnpp", "adm", "xs", "s", "m", "l", "xl", "xxl"],
)
def test_number_of_parameters(module, side, channels, expected):
    x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    params = jax.eval_shape(lambda x, t: module.init(jax.random.key(0), x, t), x, t)["params"]
    assert count(params) == expected


# --- tiny networks, in any precision ----------------------------------------------------

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 0, "num_classes": 3, "dropout": 0.5}
TINY = {
    "ncsnpp": edm.ncsnpp_cifar10(**SMALL),
    "adm": dhariwal.DhariwalUNet(head_channels=8, **SMALL),
    "edm2": edm2.EDM2UNet(head_channels=8, logvar_channels=4, **SMALL),
}
NAMES = ["ncsnpp", pytest.param("adm", marks=pytest.mark.exhaustive), "edm2"]  # adm: same blocks
INPUTS = (
    np.random.default_rng(1).standard_normal((3, 4, 4, 2)).astype(np.float32),
    np.array([-1.0, 0.0, 0.7], np.float32),
    {"label": np.array([0, 2, 3], np.int32)},
)


@functools.cache
def tiny(name):
    """Parameters away from the start, where the last layers are 0."""
    like = jax.eval_shape(TINY[name].init, jax.random.key(0), *INPUTS)["params"]
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda a: (0.3 * rng.standard_normal(a.shape)).astype(np.float32), like)


@functools.cache
def applied(name, **options):
    return jax.jit(network(TINY[name].clone(**options)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_finite_differences(name, x64):
    wide = functools.partial(jax.tree.map, lambda a: np.asarray(a, np.float64))
    params, x, t = wide(tiny(name)), wide(INPUTS[0]), wide(INPUTS[1])
    module = TINY[name].clone(dtype=jnp.float64)
    target = np.random.default_rng(0).standard_normal(x.shape)

    @jax.jit
    @jax.value_and_grad
    def loss(at):
        label = jnp.asarray(INPUTS[2]["label"])
        return jnp.sum(target * network(module)(*at, jnp.asarray(t), {"label": label}, None))

    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda a: rng.standard_normal(a.shape), (params, x))
    slopes = jax.tree.map(lambda g, d: np.sum(g * d), loss((params, x))[1], direction)
    h = 2e-3  # the norms' float32 is noise of 1e-7
    at = lambda h: loss(jax.tree.map(lambda a, d: a + h * d, (params, x), direction))[0]  # noqa: E731
    difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    np.testing.assert_allclose(sum(jax.tree.leaves(slopes)), difference, rtol=1e-3)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5, deadline=None)
@hypothesis.given(order=st.permutations(range(3)), label=st.integers(0, 2))
def test_batch_order_and_null_label(name, order, label):
    params, run = tiny(name), applied(name)
    x, t, cond = INPUTS
    exact, order = run(params, *INPUTS, None), np.array(order)
    permuted = run(params, x[order], t[order], {"label": cond["label"][order]}, None)
    scale = float(jnp.abs(exact).max())
    np.testing.assert_allclose(permuted / scale, exact[order] / scale, atol=1e-5)
    other = run(params, x, t, {"label": np.array([0, 2, label], np.int32)}, None)
    np.testing.assert_array_equal(other[:2], exact[:2])  # the third was the null label's
    assert float(jnp.abs(other - exact)[2].max()) > 1e-3 * scale


def test_the_null_label_and_no_label_are_no_class():
    rows = one_hot_label({"label": jnp.array([1, 3])}, 3, 2)
    np.testing.assert_array_equal(rows, [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(one_hot_label(None, 3, 2), 0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_remat_changes_nothing_and_dropout_acts_by_its_key(name):
    params = tiny(name)
    run = lambda key, **options: applied(name, **options)(params, *INPUTS, jax.random.key(key))  # noqa: E731
    a, b = run(0), run(1)
    scale = float(jnp.abs(a).max())
    assert float(jnp.abs(a - b).max()) > 1e-2 * scale
    np.testing.assert_allclose(run(0, remat=True) / scale, a / scale, atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_runs_of_equal_blocks_in_a_scan_change_no_value(name):
    check_forms(TINY[name].clone(blocks=3, dropout=0.0), *INPUTS)


def test_forced_norm_of_stacked_weights_is_that_of_each():
    rng = np.random.default_rng(0)
    weights = [{"conv": {"weight": jnp.asarray(rng.standard_normal((3, 3, 4, 5)))}} for _ in "ab"]
    apart = {f"enc_0_block{i}": weight for i, weight in enumerate(weights)}
    stacked = stack_blocks(apart, ["enc_0_block0_to_1"])
    forced = unstack_blocks(edm2.force_norm(stacked))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), forced, edm2.force_norm(apart)
    )


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close_and_ends_in_float32(name):
    params = tiny(name)
    exact = applied(name)(params, *INPUTS, None)
    half = applied(name, dtype=jnp.bfloat16)(params, *INPUTS, None)
    assert half.dtype == jnp.float32
    assert float(jnp.abs(half - exact).max()) < 0.1 * float(jnp.abs(exact).max())


# --- parts ------------------------------------------------------------------------------


def test_resampling_of_one_pair_is_mean_and_repetition():
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    blocks = x.reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(jax.jit(downsample)(x), blocks, atol=1e-6)
    np.testing.assert_allclose(jax.jit(upsample)(x), x.repeat(2, 1).repeat(2, 2), atol=1e-6)


def test_a_wide_filter_keeps_linear_ramps_inside():
    ramp = jnp.asarray(np.add.outer(np.arange(12.0), 2 * np.arange(12.0)), jnp.float32)
    ramp, taps = ramp[None, :, :, None], (1, 3, 3, 1)
    small = jax.jit(lambda x: downsample(x, taps))(ramp)[0, 1:-1, 1:-1, 0]
    i, j = np.arange(1, 5)[:, None], np.arange(1, 5)[None, :]
    np.testing.assert_allclose(small, (2 * i + 0.5) + 2 * (2 * j + 0.5), rtol=1e-6)
    large = jax.jit(lambda x: upsample(x, taps))(ramp)[0, 2:-2, 2:-2, 0]
    i, j = np.arange(2, 22)[:, None], np.arange(2, 22)[None, :]
    np.testing.assert_allclose(large, (i / 2 - 0.25) + 2 * (j / 2 - 0.25), rtol=1e-6)


@pytest.mark.exhaustive
def test_edm2_layers_keep_the_magnitude():
    a, b = jax.random.normal(jax.random.key(0), (2, 4, 8, 8, 64))
    rms = lambda x: float(np.sqrt(np.mean(np.asarray(x) ** 2)))  # noqa: E731
    key = jax.random.key(1)
    conv = edm2.MPConv(96, (3, 3))
    out, _ = jax.jit(conv.init_with_output)(key, a)
    assert rms(out[:, 1:-1, 1:-1]) == pytest.approx(1, abs=0.03)
    assert rms(edm2.mp_silu(a)) == pytest.approx(1, abs=0.02)
    assert rms(edm2.mp_sum(a, b, 0.3)) == pytest.approx(1, abs=0.02)
    both = edm2.mp_cat(a, b[..., :16], 0.3)
    assert rms(both) == pytest.approx(1, abs=0.02)
    share = rms(both[..., 64:]) ** 2 * 16 / (rms(both[..., :64]) ** 2 * 64)
    assert share == pytest.approx((0.3 / 0.7) ** 2, rel=0.05)
    embedding = jax.random.normal(jax.random.key(2), (4, 32))
    for encodes in (True, False):
        block = edm2.EDM2Block(64, encodes, heads=2)
        out, _ = jax.jit(block.init_with_output)(key, a, embedding)
        assert rms(out) == pytest.approx(1, abs=0.1)


def test_edm2_weights_have_a_direction_and_no_size():
    params, run = tiny("edm2"), applied("edm2")
    scaled = jax.tree_util.tree_map_with_path(
        lambda path, w: 30 * w if path[-1].key == "weight" else w, params
    )
    exact = run(params, *INPUTS, None)
    scale = float(jnp.abs(exact).max())
    for same in (scaled, jax.jit(edm2.force_norm)(params)):
        got = run(same, *INPUTS, None)
        assert float(jnp.abs(got - exact).max()) < 1e-2 * scale  # epsilon is 1e-4 per layer


def test_forced_norm_is_unit_idempotent_and_leaves_gains():
    force = jax.jit(edm2.force_norm)
    once = force(tiny("edm2"))
    flat, twice, before = flatten_dict(once), flatten_dict(force(once)), flatten_dict(tiny("edm2"))
    assert {path[-1] for path in flat} == {"weight", "emb_gain", "out_gain"}
    for path, w in flat.items():
        if path[-1] == "weight":
            square = np.mean(np.asarray(w) ** 2, axis=tuple(range(w.ndim - 1)))
            np.testing.assert_allclose(square, 1, atol=0.01)
            np.testing.assert_allclose(twice[path], w, rtol=2e-3)
        else:
            np.testing.assert_array_equal(w, before[path])


def test_the_weight_of_the_uncertainty_is_not_of_unit_norm():
    """It is a vector beside the network's, in one tree: each number would become 1 or -1."""
    params = {"network": {"a": {"weight": jnp.ones((3, 2))}}, "u": {"weight": jnp.arange(4.0)}}
    forced = edm2.force_norm(params)
    np.testing.assert_array_equal(forced["u"]["weight"], np.arange(4.0))


def test_the_optimizer_ends_at_unit_norm():
    params = {"a": {"weight": jnp.arange(1.0, 7.0).reshape(3, 2), "gain": jnp.array(2.0)}}
    optimizer = optax.chain(optax.sgd(0.1), edm2.forced_weight_norm())
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)["a"]
    columns = np.arange(1.0, 7.0).reshape(3, 2)
    expected = columns / np.sqrt(np.mean(columns**2, axis=0))
    np.testing.assert_allclose(after["weight"], expected, rtol=1e-3)
    np.testing.assert_allclose(after["gain"], 1.8, rtol=1e-6)


@pytest.mark.parametrize("kind", [FourierFeatures, MPFourier])
def test_frequencies_are_fixed_or_stored_and_never_trained(kind):
    t = jnp.array([0.1, -0.4])
    new = kind(8).apply({}, t)
    assert float(jnp.mean(new**2)) == pytest.approx(0.5 if kind is FourierFeatures else 1, abs=0.5)
    stored = kind(8, stored=True)
    variables = stored.init(jax.random.key(0), t)
    np.testing.assert_allclose(stored.apply(variables, t), new, rtol=1e-6)
    gradient = jax.grad(lambda v: jnp.sum(stored.apply(v, t)))(variables)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))


# --- configurations ---------------------------------------------------------------------

CIFAR_CLASSES = 10
SIZE = {"img_resolution": 8, "img_channels": 3, "channel_mult": [1, 2]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"architecture": "edm", **SIZE, "model_chanels": 8}, "model_channels"),
        ({"architecture": "edm", **SIZE, "model_type": "UNet"}, "SongUNet"),
        ({"architecture": "edm_vp", **SIZE, "encoder_type": "stacked"}, "residual"),
        ({"architecture": "edm", **SIZE, "img_resolution": 9}, "multiple of 2"),
        ({"architecture": "edm2", **SIZE, "resample_filter": [1, 2, 1]}, "even length"),
        ({"architecture": "edm2", "img_channels": 4}, "img_resolution"),
    ],
)
def test_a_wrong_configuration_is_a_sentence(given, words):
    with pytest.raises(InputError, match=words):
        architecture_of(given)


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


@pytest.mark.exhaustive
@pytest.mark.parametrize("conditional", [True, False])
def test_the_cifar10_experiment(conditional):
    path = Path(__file__).parents[1] / "configs" / "cifar10_edm.py"
    experiment = config.build(config.load(path), {"conditional": conditional})
    params = jax.eval_shape(experiment.model.init, jax.random.key(0))
    augmentation = 9 * 128
    label = (CIFAR_CLASSES + 1) * 128 if conditional else 0
    assert count(params) == 55_733_891 - augmentation + label
    of = jax.ShapeDtypeStruct
    batch = {"x": of((2, 32, 32, 3), jnp.float32), "label": of((2,), jnp.int32)}
    loss, _ = jax.eval_shape(training_loss(experiment), params, jax.random.key(0), batch)
    assert loss.shape == ()
    decay = experiment.averages["ema"](10**9)
    assert pytest.approx(float(decay), abs=1e-6) == 0.5 ** (512 / 500_000)
    assert experiment.steps * experiment.batch_size == 200_000_000
