"""Autoencoders against diffusers' numbers, and options that change no parameter."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import reference, write_folder
from safetensors.numpy import load_file

from diffjax.errors import InputError
from diffjax.latents import nearest_codes
from diffjax.models import VAE, AutoencoderKL, Decoder, Encoder, PatchDiscriminator, VQModel, kl_f8
from diffjax.models.stacking import stack_blocks, unstack_blocks
from diffjax.models.vq import ON_SPHERE
from diffjax.pretrained import load, save_safetensors
from diffjax.pretrained.autoencoder import autoencoder_kl, vq_model
from diffjax.pretrained.naming import count

GOLDEN = ("diffusers_autoencoder_kl", "diffusers_vq_model")


def nhwc(x):
    return np.moveaxis(x, 1, -1)


def assert_close(ours, theirs):
    """Within 2e-5 of the largest number of the reference."""
    np.testing.assert_allclose(ours, nhwc(theirs), atol=2e-5 * np.abs(theirs).max(), rtol=0)


def tiny(dtype=jnp.float32, remat=False):
    options = {"channels": (4, 8), "blocks": 0, "groups": 2, "dtype": dtype, "remat": remat}
    decoder = Decoder(1, middle_attention=False, **options)
    return AutoencoderKL(Encoder(4, **options), decoder, latent_channels=2)


@functools.cache
def tiny_params():
    """Random parameters, filled without compiling `init`, and a batch."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((3, 8, 8, 1)), jnp.float32)
    shapes = jax.eval_shape(tiny().init, jax.random.key(0), x)["params"]
    draw = lambda s: rng.standard_normal(s.shape) / np.sqrt(np.prod(s.shape[:-1]) or 1)  # noqa: E731
    return jax.tree.map(lambda s: jnp.asarray(draw(s), jnp.float32), shapes), x


@functools.cache
def encode(**options):
    """(params, x) -> (mean, logvar)."""
    module = tiny(**options)
    return jax.jit(lambda params, x: module.apply({"params": params}, x, method="encode"))


@functools.cache
def decode():
    """(params, z) -> x."""
    return jax.jit(lambda params, z: tiny().apply({"params": params}, z, method="decode"))


# --- diffusers' numbers -------------------------------------------------------------------


def test_kl_autoencoder_has_the_references_numbers(tmp_path):
    config, tensors, io = reference("diffusers_autoencoder_kl")
    model = load(write_folder(tmp_path, config, tensors))
    with jax.default_matmul_precision("highest"):
        mean, logvar = jax.jit(model.encode)(model.params, nhwc(io["in_x"]))
        decoded = jax.jit(model.decode)(model.params, nhwc(io["out_mean"]))
    assert_close(mean, io["out_mean"])
    assert_close(logvar, io["out_logvar"])
    assert_close(decoded, io["out_decoded"])


def test_vq_model_has_the_references_numbers(tmp_path):
    config, tensors, io = reference("diffusers_vq_model")
    model = load(write_folder(tmp_path, config, tensors))
    with jax.default_matmul_precision("highest"):
        z, logvar = jax.jit(model.encode)(model.params, nhwc(io["in_x"]))
        decoded = jax.jit(model.decode)(model.params, z)
    assert_close(z, io["out_latents"])
    assert_close(decoded, io["out_decoded"])
    indices = nearest_codes(z, jnp.asarray(model.params["codebook"]))
    np.testing.assert_array_equal(indices, io["out_indices"])
    assert np.all(np.exp(logvar) == 0)


@pytest.mark.parametrize("name", GOLDEN)
def test_round_trip_is_bit_equal(name, tmp_path):
    config, tensors, _ = reference(name)
    save_safetensors(tmp_path / "b", load(write_folder(tmp_path / "a", config, tensors)))
    written = load_file(tmp_path / "b" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for key, w in tensors.items():
        np.testing.assert_array_equal(written[key], w, strict=True)


def test_names_of_older_files(tmp_path):
    config, tensors, _ = reference("diffusers_autoencoder_kl")

    def older(name):
        for new, old in (
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ):
            name = name.replace(f".{new}.", f".{old}.")
        return name

    old = {older(name): w for name, w in tensors.items()}
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in old
    models = [
        load(write_folder(tmp_path / sub, config, t)) for sub, t in (("a", tensors), ("b", old))
    ]
    chex.assert_trees_all_equal(models[0].params, models[1].params)


def test_parameter_counts_are_the_published_ones():
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    of = lambda module: count(jax.eval_shape(module.init, jax.random.key(0), x))  # noqa: E731
    assert of(kl_f8()) == 83_653_863
    assert of(kl_f8(latent_channels=16, quant_convs=False)) == 83_819_683


@pytest.mark.parametrize(
    ("make", "change", "words"),
    [
        (autoencoder_kl, {"layers_per_blok": 2}, "did you mean 'layers_per_block'"),
        (autoencoder_kl, {"act_fn": "relu"}, "act_fn = 'relu' is not supported"),
        (autoencoder_kl, {"down_block_types": ["DownBlock2D"]}, "down_block_types"),
        (autoencoder_kl, {"block_out_channels": [32, 64]}, "expected 2 of"),
        (vq_model, {"norm_type": "spatial"}, "norm_type = 'spatial'"),
    ],
)
def test_a_configuration_that_is_not_built_here(make, change, words):
    with pytest.raises(InputError, match=words):
        make(change)


# --- options, and what must not matter ----------------------------------------------------


@pytest.mark.exhaustive
def test_bfloat16_is_close_and_its_outputs_are_float32():
    params, x = tiny_params()
    rough_and_exact = zip(encode(dtype=jnp.bfloat16)(params, x), encode()(params, x), strict=True)
    for rough, exact in rough_and_exact:
        assert rough.dtype == jnp.float32
        assert 0 < float(jnp.abs(rough - exact).max() / jnp.abs(exact).max()) < 0.1


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(3)))
def test_samples_of_a_batch_do_not_mix(order):
    params, x = tiny_params()
    order = np.array(order)
    outputs, moved = (
        (*encode()(params, x), decode()(params, encode()(params, x)[0])) for x in (x, x[order])
    )
    for a, b in zip(outputs, moved, strict=True):
        np.testing.assert_allclose(a[order], b, atol=1e-5)


def test_logvar_is_bounded():
    params, x = tiny_params()
    for bias, bound in ((1e3, 20.0), (-1e3, -30.0)):
        far = {**params, "to_moments": {**params["to_moments"], "bias": jnp.full(4, bias)}}
        np.testing.assert_array_equal(encode()(far, x)[1], bound)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_gradient_of_remat_is_that_of_finite_differences():
    """Along a random direction; remat's parameters and values are those without it."""
    params, x = tiny_params()
    plain = sum(jnp.mean(jnp.sin(out)) for out in encode()(params, x))
    module = tiny(jnp.float64, remat=True)
    params, x = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), (params, x))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    direction = jax.tree.unflatten(tree, [rng.standard_normal(p.shape) for p in leaves])

    @jax.jit
    @jax.value_and_grad
    def along(h):
        moved = jax.tree.map(lambda p, d: p + h * d, params, direction)
        moments = module.apply({"params": moved}, x, method="encode")
        return sum(jnp.mean(jnp.sin(out)) for out in moments)

    value, gradient = along(0.0)
    (above, _), (below, _) = along(1e-5), along(-1e-5)
    np.testing.assert_allclose(gradient, (above - below) / 2e-5, rtol=1e-6)
    np.testing.assert_allclose(value, plain, rtol=1e-4)


@pytest.mark.exhaustive
def test_runs_of_equal_blocks_in_a_scan_change_no_value():
    """Parameters of encoder and decoder are a level down in the tree."""
    options = {"channels": (4, 8), "blocks": 3, "groups": 2, "attention_levels": (1,)}
    module, scanned = (
        AutoencoderKL(
            Encoder(4, scan_blocks=scan, **options), Decoder(2, scan_blocks=scan, **options), 2
        )
        for scan in (False, True)
    )
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 2))
    params = jax.jit(module.init)(jax.random.key(2), x)["params"]
    like = jax.eval_shape(scanned.init, jax.random.key(0), x)["params"]
    assert {"down_0_0_to_2", "down_1_0", "down_1_0_attention"} <= set(like["encoder"])
    stacked = stack_blocks(params, like)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, like)
    y, z = (jax.jit(m.apply)({"params": p}, x) for m, p in ((module, params), (scanned, stacked)))
    chex.assert_trees_all_close(y, z, rtol=1e-7, atol=1e-5)
    chex.assert_trees_all_equal(unstack_blocks(stacked), params)


def test_codes_decode_to_themselves_and_train():
    """z on a code passes through the table; off it, gradients go to the encoder only."""
    module = VQModel(nn.Dense(2), nn.Dense(1), 2, codes=5, code_dim=3)
    variables = jax.jit(module.init)(jax.random.key(1), jnp.ones((1, 4, 4, 1)))
    codes = variables["params"]["codebook"][jnp.array([[4, 0], [2, 1]])][None]

    @jax.jit
    def pull(variables, z):
        of = lambda *a: (y := module.apply(*a, method="decode"), jnp.sum(y**2))[::-1]  # noqa: E731
        (_, y), grads = jax.value_and_grad(of, (0, 1), has_aux=True)(variables, z)
        return y, module.apply(variables, codes, method="decode_codes"), *grads

    on, direct, _, _ = pull(variables, codes)
    off, _, gradient, at_z = pull(variables, codes + 1e-4)
    np.testing.assert_allclose(on, direct, atol=1e-6)
    np.testing.assert_allclose(off, direct, atol=1e-6)
    assert np.all(gradient["params"]["codebook"] == 0)
    assert float(jnp.abs(at_z).max()) > 1e-3


def test_codes_on_the_sphere_are_directions():
    """z, codes and their loss are the same however long the rows of the table and z are."""
    module = VQModel(nn.Dense(2), nn.Dense(1), 2, codes=5, code_dim=3, **ON_SPHERE)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 4, 1)), jnp.float32)
    params = dict(module.init(jax.random.key(1), x)["params"])
    z = module.apply({"params": params}, x, method="encode")
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), 1, rtol=1e-5)
    longer = {**params, "codebook": params["codebook"] * jnp.array([[2.0], [3], [4], [5], [6]])}
    longer["to_codes"] = jax.tree.map(lambda w: 7 * w, params["to_codes"])
    one, other = (module.apply({"params": p}, x) for p in (params, longer))
    chex.assert_trees_all_close(one, other, atol=1e-6)
    codes = module.apply({"params": params}, z, method="quantize")
    rows = np.asarray(params["codebook"])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    near = np.linalg.norm(np.asarray(z)[..., None, :] - rows, axis=-1).argmin(-1)
    np.testing.assert_allclose(codes, rows[near], atol=1e-5)
    np.testing.assert_array_equal(one[1], near)


def test_shapes_of_the_plain_vae_and_of_patches():
    vae = VAE((4, 4, 1), latent=3, hidden=(8,))
    of = functools.partial(jax.eval_shape, vae.init_with_output, jax.random.key(0))
    (x, mean, logvar), _ = of(jax.ShapeDtypeStruct((2, 4, 4, 1), np.float32))
    assert (x.shape, mean.shape, logvar.shape) == ((2, 4, 4, 1), (2, 3), (2, 3))
    image = jax.ShapeDtypeStruct((2, 256, 256, 3), np.float32)  # pix2pix: 30 x 30 of 256 x 256
    logits = jax.eval_shape(PatchDiscriminator().init_with_output, jax.random.key(0), image)[0]
    assert logits.shape == (2, 30, 30)
