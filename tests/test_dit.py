"""DiT: the reference's numbers, counts and weights, and options that change no value."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import reference, write_folder
from safetensors.numpy import load_file
from tiny import apply, check_forms, check_gradient, close, inputs, randomised

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.experiment import guided
from diffjax.models.dit import DiTBlock, dit_b_2, dit_b_4, dit_l_2, dit_s_2, dit_s_8, dit_xl_2
from diffjax.models.patches import patchify, unpatchify
from diffjax.models.per_block_dit import PerBlockDiT
from diffjax.models.stacking import apart
from diffjax.parameterization import make_denoiser
from diffjax.pretrained.naming import count
from diffjax.run import config

TINY = {"width": 16, "depth": 2, "heads": 2, "num_classes": 3}
GOLDEN = {"dit": {"architecture": "dit"}, "diffusers_dit": {}, "diffusers_dit_plain": {}}
CONFIG = Path(__file__).parents[1] / "configs" / "imagenet256_dit.py"


def golden(name, folder):
    """The golden network as loaded, its tensors on disk, and its inputs and output in NHWC."""
    described, tensors, io = reference(name)
    tensors.pop("pos_embed", None)
    model = pretrained.load(write_folder(folder / "in", GOLDEN[name] | described, tensors))
    x, y = (jnp.asarray(io[name].transpose(0, 2, 3, 1)) for name in ("in_x", "out_y"))
    t, label = jnp.asarray(io["in_t"], np.float32), jnp.asarray(io["in_y"])
    return model, tensors, (x, t, {"label": label}, y)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, tmp_path):
    model, tensors, (x, t, cond, y) = golden(name, tmp_path)
    with jax.default_matmul_precision("highest"):
        close(y, jax.jit(model.network)(model.params, x, t, cond, None), 2e-5)
    pretrained.save_safetensors(tmp_path / "out", model)
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert (back.pop("pos_embed", None) is None) == (name != "dit")
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key], value)


def test_the_denoiser_is_given_the_references_steps_and_says_the_variance(tmp_path):
    model, _, (x, t, cond, y) = golden("dit", tmp_path)
    denoiser = make_denoiser(*model[:4])
    out = jax.jit(denoiser)(x, (t + 1) / 1000, cond)
    eps, variance = jnp.split(y, 2, axis=-1)
    alpha, sigma = (f((t + 1) / 1000)[:, None, None, None] for f in model.schedule[:2])
    close(x, alpha * out.x0 + sigma * eps, 1e-4)
    close((variance + 1) / 2, out.variance_fraction, 1e-4)


def test_diffusers_blocks_embed_by_themselves(tmp_path):
    """The embedding of the second block matters on its own."""
    model, _, (x, t, cond, y) = golden("diffusers_dit", tmp_path)
    first = model.params["block_0"]["embedding"]
    shared = model.params | {"block_1": model.params["block_1"] | {"embedding": first}}
    assert float(jnp.abs(jax.jit(model.network)(shared, x, t, cond, None) - y).max()) > 1e-2


def test_legacy_name_is_the_same_network(tmp_path):
    model, tensors, (x, t, cond, y) = golden("diffusers_dit", tmp_path)
    legacy = model.config | {"_class_name": "Transformer2DModel", "interpolation_scale": None}
    model = pretrained.load(write_folder(tmp_path / "legacy", legacy, tensors))
    close(y, jax.jit(model.network)(model.params, x, t, cond, None), 1e-4)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dit", {"hidden": 3}, "hidden_size"),
        ("diffusers_dit", {"norm_type": "ada_norm"}, "norm_type"),
        ("diffusers_dit", {"activation_fn": "geglu"}, "gelu-approximate"),
        ("diffusers_dit", {"norm_elementwise_affine": True}, "norm3"),
        ("dit", {"depth": 3}, "blocks.2"),
    ],
)
def test_what_does_not_fit_is_named(name, change, message, tmp_path):
    described, tensors, _ = reference(name)
    folder = write_folder(tmp_path / "in", GOLDEN[name] | described | change, tensors)
    with pytest.raises(InputError, match=message):
        pretrained.load(folder)


@pytest.mark.parametrize("scan", [pytest.param(False, marks=pytest.mark.exhaustive), True])
@pytest.mark.parametrize(
    ("make", "parameters"),
    [(dit_s_2, 32_865_056), (dit_b_2, 130_315_808), (dit_l_2, 457_840_672),
     (dit_xl_2, 674_834_720)],
)  # fmt: skip
def test_counts(make, parameters, scan):
    x, t, label = (jax.ShapeDtypeStruct(s, d) for s, d in (
        ((1, 32, 32, 4), np.float32), ((1,), np.float32), ((1,), np.int32)))  # fmt: skip
    module = make(scan_blocks=scan)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, t, {"label": label})
    assert count(shapes) == parameters


def test_names_say_the_sizes():
    assert (dit_s_8().patch_size, dit_b_4().patch_size) == (8, 4)
    assert dit_xl_2(width=64, patch_size=4).width == 64


@pytest.mark.exhaustive
def test_scan_and_remat_change_no_value():
    check_forms(dit_s_2(**TINY), *inputs(size=4))


@pytest.mark.exhaustive
@pytest.mark.parametrize("module", [dit_s_2(**TINY), PerBlockDiT(**TINY, out_channels=2)])
@pytest.mark.parametrize("remat", [False, True])
def test_scan_changes_no_value(module, remat):
    check_forms(module, *inputs(size=4), remat=remat)


@pytest.mark.exhaustive
def test_gradient(x64):
    check_gradient(dit_s_2(**TINY, dtype=jnp.float64), *inputs(size=4, dtype=np.float64))


def test_a_gradient_costs_what_its_blocks_cost():
    """Each block adds the same number of operations to the compiled backward pass on a CPU."""

    def operations(depth):
        module, given = dit_s_2(**TINY | {"depth": depth}), inputs()
        params = jax.eval_shape(module.init, jax.random.key(0), *given)["params"]
        loss = lambda p: (module.apply({"params": p}, *given) ** 2).sum()  # noqa: E731
        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled.cost_analysis()["flops"]

    two, four, eight = map(operations, (2, 4, 8))
    np.testing.assert_allclose(eight - four, 2 * (four - two), rtol=1e-3)


def test_what_keeps_gradients_apart_is_the_identity():
    """Its derivatives of both orders, along a direction, backwards and batched, are those of h."""
    h, along = jnp.arange(1.0, 7).reshape(3, 2), jnp.ones((3, 2))
    cube = lambda h: (apart(h) ** 3).sum()  # noqa: E731
    close(jax.jit(jax.grad(cube))(h), 3 * h**2)
    close(jax.jit(jax.vmap(jax.grad(cube)))(h), 3 * h**2)
    _, second = jax.jit(partial(jax.jvp, jax.grad(cube)))((h,), (along,))
    close(second, 6 * h)
    close(jax.jit(jax.grad(lambda h: jax.jvp(cube, (h,), (along,))[1]))(h), 6 * h)


def test_bfloat16_shares_parameters_and_is_close():
    x, t, cond = inputs()
    module = dit_s_2(**TINY)
    params = randomised(module, x, t, cond, scale=0.1)
    exact = apply(module, params, x, t, cond)
    rough = apply(module.clone(dtype=jnp.bfloat16), params, x, t, cond)
    assert rough.dtype == jnp.float32
    close(exact, rough, 0.03)


def test_a_new_network_outputs_zero_and_its_blocks_are_identities():
    x, t, cond = inputs()
    module = dit_s_2(**TINY)
    params = jax.jit(module.init)(jax.random.key(0), x, t, cond)["params"]
    np.testing.assert_array_equal(apply(module, params, x, t, cond), 0)
    params["final"]["out"] = randomised(module, x, t, cond)["final"]["out"]
    shallow = module.clone(depth=1)
    fewer = {name: value for name, value in params.items() if name != "block_1"}
    np.testing.assert_array_equal(
        apply(module, params, x, t, cond), apply(shallow, fewer, x, t, cond)
    )


def test_initial_spread():
    """Xavier-uniform over the whole fused layer, 0.02 for the embeddings."""
    x, t, cond = inputs()
    module = dit_s_2(**TINY | {"width": 128, "num_classes": 50})
    params = jax.jit(module.init)(jax.random.key(0), x, t, cond)["params"]
    kernel = params["block_0"]["attention"]["qkv"]["dense"]["kernel"]
    bound = np.sqrt(6 / (128 + 3 * 128))
    assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
    for leaf in jax.tree.leaves(params["embedding"]):
        if leaf.ndim == 2:
            np.testing.assert_allclose(jnp.std(leaf), 0.02, rtol=0.05)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(3)), null=st.integers(0, 2))
def test_samples_do_not_mix_and_the_null_label_is_one_more(order, null):
    x, t, _ = inputs()
    order = np.array(order)
    module = dit_s_2(**TINY)
    label = jnp.array([0, 1, 2])
    params = randomised(module, x, t, {"label": label})
    call = partial(apply, module)
    y = call(params, x, t, {"label": label})
    close(y[order], call(params, x[order], t[order], {"label": label[order]}), 1e-5)
    dropped = call(params, x, t, {"label": jnp.where(label == null, 3, label)})
    changed = np.abs(np.asarray(y - dropped)).max(axis=(1, 2, 3)) > 1e-3
    np.testing.assert_array_equal(changed, label == null)
    table = params["embedding"]["label"]["table"]["embedding"]
    assert table.shape[0] == 4


@settings(max_examples=5, deadline=None)
@given(rows=st.integers(1, 3), columns=st.integers(1, 3), size=st.integers(1, 3))
def test_patches(rows, columns, size):
    x = np.random.default_rng(0).standard_normal((2, rows * size, columns * size, 2))
    patches = patchify(jnp.asarray(x), size)
    np.testing.assert_array_equal(unpatchify(patches, *x.shape[1:3], size), patches.dtype.type(x))
    last = x[:, -size:, -size:].reshape(2, -1).astype(patches.dtype)
    np.testing.assert_array_equal(patches[:, -1], last)


def test_errors_say_what_to_do():
    x, t, cond = inputs(size=6)
    with pytest.raises(InputError, match="multiples of 4"):
        dit_s_2(**TINY, patch_size=4).init(jax.random.key(0), x, t, cond)
    with pytest.raises(InputError, match="label"):
        dit_s_2(**TINY).init(jax.random.key(0), x, t, None)


def test_without_labels():
    x, t, _ = inputs()
    module = dit_s_2(**TINY | {"num_classes": 0}, learn_sigma=False, block=partial(DiTBlock))
    assert apply(module, randomised(module, x, t, None), x, t, None).shape == x.shape


@pytest.mark.exhaustive
def test_imagenet_config_trains_a_tiny_step():
    e = config.build(
        config.load(CONFIG), {"width": 16, "depth": 1, "heads": 2, "size": 4, "batch_size": 2}
    )
    x, _, _ = inputs(batch=2, size=4, channels=4)
    shapes = jax.eval_shape(e.model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    batch = {"x": jnp.asarray(x), "label": jnp.array([0, 999])}
    loss, aux = jax.jit(e.loss({}))(params, jax.random.key(1), batch)
    # Zero weights say eps = 0, so that the squared error is that of the noise alone.
    assert abs(float(aux["mse"]) - 1) < 0.5
    assert float(loss) > float(aux["mse"])
    denoiser = guided(e.model, params, 1.5, {"label": 1000}, {})
    out = jax.eval_shape(denoiser, batch["x"], 0.5, {"label": batch["label"]})
    assert out.x0.shape == out.variance_fraction.shape == x.shape
