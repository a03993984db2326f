"""Autoencoders against diffusers' numbers, and options that change no parameter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import reference, write_folder
from safetensors.numpy import load_file

from diffjax.latents import nearest_codes
from diffjax.models import VAE, AutoencoderKL, Decoder, Encoder, PatchDiscriminator, VQModel, kl_f8
from diffjax.pretrained import load, save_safetensors
from diffjax.pretrained.autoencoder import OLD_ATTENTION, autoencoder_kl, vq_model
from diffjax.pretrained.naming import count
from diffjax.types import InputError

GOLDEN = ("diffusers_autoencoder_kl", "diffusers_vq_model")


def nhwc(x):
    return np.moveaxis(x, 1, -1)


def assert_close(ours, theirs):
    """Within 2e-5 of the largest number of the reference."""
    np.testing.assert_allclose(ours, nhwc(theirs), atol=2e-5 * np.abs(theirs).max(), rtol=0)


def tiny(dtype=jnp.float32, remat=False):
    options = {"channels": (4, 8), "blocks": 1, "groups": 2, "dtype": dtype, "remat": remat}
    encoder = Encoder(4, attention_levels=(1,), **options)
    return AutoencoderKL(encoder, Decoder(1, **options), latent_channels=2)


@functools.cache
def tiny_params():
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    return jax.jit(tiny().init)(jax.random.key(1), x)["params"], x


@functools.cache
def forward(**options):
    """(params, x) -> (decoded, mean, logvar)."""
    module = tiny(**options)
    return jax.jit(lambda params, x: module.apply({"params": params}, x))


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
    np.testing.assert_array_equal(nearest_codes(z, model.params["codebook"]), io["out_indices"])
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
        for new, old in OLD_ATTENTION.items():
            name = name.replace(f".{new}.", f".{old}.")
        return name

    old = {older(name): w for name, w in tensors.items()}
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in old
    models = [
        load(write_folder(tmp_path / sub, config, t)) for sub, t in (("a", tensors), ("b", old))
    ]
    jax.tree.map(np.testing.assert_array_equal, models[0].params, models[1].params)


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


def test_remat_and_bfloat16_share_parameters():
    params, x = tiny_params()
    decoded, mean, logvar = forward()(params, x)
    for again, exact in zip(forward(remat=True)(params, x), (decoded, mean, logvar), strict=True):
        np.testing.assert_allclose(again, exact, atol=1e-5)
    for rough, exact in zip(
        forward(dtype=jnp.bfloat16)(params, x), (decoded, mean, logvar), strict=True
    ):
        assert rough.dtype == jnp.float32
        assert 0 < float(jnp.abs(rough - exact).max() / jnp.abs(exact).max()) < 0.1


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(3)))
def test_samples_of_a_batch_do_not_mix(order):
    params, x = tiny_params()
    order = np.array(order)
    for out, moved in zip(forward()(params, x), forward()(params, x[order]), strict=True):
        np.testing.assert_allclose(out[order], moved, atol=1e-5)


def test_logvar_is_bounded():
    params, x = tiny_params()
    for bias, bound in ((1e3, 20.0), (-1e3, -30.0)):
        far = {**params, "to_moments": {**params["to_moments"], "bias": jnp.full(4, bias)}}
        np.testing.assert_array_equal(forward()(far, x)[2], bound)


@pytest.mark.usefixtures("x64")
def test_gradient_is_that_of_finite_differences():
    """Along a random direction; norms stay float32, so that steps are large, and extrapolated."""
    module = tiny(jnp.float64, remat=True)
    to_double = functools.partial(jax.tree.map, lambda p: jnp.asarray(p, jnp.float64))
    params, x = to_double(tiny_params())
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    direction = jax.tree.unflatten(tree, [rng.standard_normal(p.shape) * 0.1 for p in leaves])

    @jax.jit
    def along(h):
        moved = jax.tree.map(lambda p, d: p + h * d, params, direction)
        return sum(jnp.mean(jnp.sin(out)) for out in module.apply({"params": moved}, x))

    def difference(h):
        return (along(h) - along(-h)) / (2 * h)

    numeric = (4 * difference(0.02) - difference(0.04)) / 3
    np.testing.assert_allclose(jax.jit(jax.grad(along))(0.0), numeric, rtol=1e-4)


def test_codes_decode_to_themselves_and_train():
    """z on a code passes through the table; off it, gradients go to the encoder only."""
    options = {"channels": (4,), "blocks": 1, "groups": 2}
    module = VQModel(Encoder(2, **options), Decoder(1, **options), 2, codes=5, code_dim=3)
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    variables = jax.jit(module.init)(jax.random.key(1), x)
    codes = variables["params"]["codebook"][jnp.array([[4, 0], [2, 1]])][None]
    decode = jax.jit(functools.partial(module.apply, method="decode"))
    direct = module.apply(variables, codes, method="decode_codes")
    np.testing.assert_allclose(decode(variables, codes), direct, atol=1e-6)
    np.testing.assert_allclose(decode(variables, codes + 1e-4), direct, atol=1e-6)
    gradient, at_z = jax.grad(lambda *a: jnp.sum(decode(*a) ** 2), (0, 1))(variables, codes + 1e-4)
    assert np.all(gradient["params"]["codebook"] == 0)
    assert float(jnp.abs(at_z).max()) > 1e-3


def test_shapes_of_the_plain_vae_and_of_patches():
    vae = VAE((4, 4, 1), latent=3, hidden=(8,))
    (x, mean, logvar), _ = vae.init_with_output(jax.random.key(0), jnp.ones((2, 4, 4, 1)))
    assert (x.shape, mean.shape, logvar.shape) == ((2, 4, 4, 1), (2, 3), (2, 3))
    image = jax.ShapeDtypeStruct((2, 256, 256, 3), np.float32)  # pix2pix: 30 x 30 of 256 x 256
    logits = jax.eval_shape(PatchDiscriminator().init_with_output, jax.random.key(0), image)[0]
    assert logits.shape == (2, 30, 30)
