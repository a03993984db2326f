"""The U-Nets of diffusers and guided-diffusion give their references' numbers."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import GOLDEN, reference, write_folder
from safetensors.numpy import load_file

from diffjax import models, pretrained
from diffjax.errors import InputError
from diffjax.models.layers import sinusoidal_embedding

T = 1000


def read(tmp_path, name, **changed):
    """A golden network as `load` gives it, with its arrays in NHWC."""
    config, tensors, io = reference(name)
    if name == "adm_unet":
        config = {"architecture": "adm", **config}
    folder = write_folder(tmp_path / name, {**config, **changed}, tensors)
    images = {k: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for k, a in io.items()}
    return pretrained.load(folder), tensors, images


def run(model, io):
    """The network at the highest precision, as a function of the factors of FreeU."""
    labels = {k: io[f"in_{k}"] for k in ("label", "tokens", "token_mask") if f"in_{k}" in io}
    if "in_y" in io:
        labels["label"] = io["in_y"]
    if "in_text" in io:
        ids = sinusoidal_embedding(jnp.asarray(io["in_ids"]).ravel(), 4).reshape(2, -1)
        labels["vector"] = jnp.concatenate([io["in_text"], ids], axis=1)
    inputs = jax.tree.map(jnp.asarray, (io["in_x"], io["in_t"].astype(np.float32), labels))

    @jax.jit
    def with_factors(params, b, s):
        arguments = {"skip": models.free_u(b, s)} if "out_free_u" in io else {}
        return models.network(model.module, **arguments)(params, *inputs, None)

    def y(b, s):
        with jax.default_matmul_precision("highest"):
            return with_factors(model.params, jnp.array(b), jnp.array(s))

    return y


def agree(y, expected):
    """Within 2e-5 of the largest value."""
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "i", [0, *(pytest.param(i, marks=pytest.mark.exhaustive) for i in (1, 2, 3))]
)
def test_sizes_that_halving_does_not_divide(tmp_path, i):
    """13 x 7, 5 x 6, 3 x 10 and 8 x 12 on three levels, where diffusers resizes on the way up."""
    model, _, io = read(tmp_path, "diffusers_unet2d_condition_odd")
    tokens = {"tokens": jnp.asarray(io["in_context"])}
    x, t = jnp.asarray(io[f"in_x_{i}"]), jnp.asarray(io["in_t"], jnp.float32)
    with jax.default_matmul_precision("highest"):
        y = jax.jit(lambda params: model.network(params, x, t, tokens, None))(model.params)
    agree(y, io[f"out_y_{i}"])


@pytest.mark.parametrize(
    "name",
    [
        "adm_unet",
        "adm_unet_plain",
        "adm_classifier",
        "diffusers_unet2d",
        "diffusers_unet2d_resnet",
        "diffusers_unet2d_condition",
    ],
)
def test_golden_numbers_and_a_round_trip_that_is_bit_equal(tmp_path, name):
    model, tensors, io = read(tmp_path, name)
    y = run(model, io)
    agree(y((1.0, 1.0), (1.0, 1.0)), io["out_y"])
    if "out_free_u" in io:
        agree(y((1.5, 1.6), (0.9, 0.2)), io["out_free_u"])
    pretrained.save_safetensors(tmp_path / "back", model)
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == tensors.keys()
    for key, w in tensors.items():
        np.testing.assert_array_equal(back[key], w)


def test_the_time_is_that_of_the_reference(tmp_path):
    """Step k of the beta table is t = (k + 1)/1000, and the network there is given k."""
    model, _, _ = read(tmp_path, "diffusers_unet2d")
    t = jnp.array([1 / T, 0.5, 1.0])
    coefficients = model.parameterization(model.schedule, t)
    np.testing.assert_allclose(coefficients.c_noise, [0, 499, 999], atol=1e-4)
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, T))[[0, 499, 999]]
    np.testing.assert_allclose(model.schedule.alpha(t) ** 2, alpha_bar, rtol=1e-4)
    np.testing.assert_allclose(coefficients.c_skip, alpha_bar**-0.5, rtol=1e-4)


SCALED = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 500,
    "prediction_type": "v_prediction",
    "clip_sample": False,
}


@pytest.mark.parametrize("place", [".", "scheduler", "../scheduler"])
def test_the_scheduler_is_read_and_written_back(tmp_path, place):
    folder = tmp_path / "pipeline" / "unet"
    folder.mkdir(parents=True)
    home = (folder / place).resolve()
    home.mkdir(exist_ok=True)
    (home / "scheduler_config.json").write_text(json.dumps(SCALED))
    for path in (GOLDEN / "tiny_unet2d").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    model = pretrained.load(folder)
    t = jnp.array([1 / 500, 1.0])
    alpha_bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 500) ** 2)[[0, -1]]
    np.testing.assert_allclose(model.schedule.alpha(t) ** 2, alpha_bar, rtol=1e-4)
    coefficients = model.parameterization(model.schedule, t)
    np.testing.assert_allclose(coefficients.c_skip, alpha_bar**0.5, rtol=1e-4)  # v: alpha x_t
    np.testing.assert_allclose(coefficients.c_noise, [0, 499], atol=1e-4)
    pretrained.save_safetensors(tmp_path / "back", model)
    assert pretrained.load(tmp_path / "back").config == model.config
    assert "_scheduler" not in json.loads((tmp_path / "back" / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"beta_schedule": "laplace"}, "beta_schedule = 'laplace' is not supported"),
    ],
)
def test_schedulers_that_are_refused(tmp_path, change, words):
    folder = tmp_path / "net"
    folder.mkdir()
    for path in (GOLDEN / "tiny_unet2d").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "scheduler_config.json").write_text(json.dumps(SCALED | change))
    with pytest.raises(InputError, match=words):
        pretrained.load(folder)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("adm_unet", {"dims": 3}, "dims = 3 is not supported"),
        ("adm_unet", {"chanel_mult": [1]}, "did you mean 'channel_mult'"),
        ("adm_unet", {"image_size": None}, "needs image_size"),
        ("adm_classifier", {"pool": "spatial"}, "pool = 'spatial' is not supported"),
        ("diffusers_unet2d", {"time_embedding_type": "fourier"}, "time_embedding_type"),
        ("diffusers_unet2d", {"act_fn": "mish"}, "act_fn = 'mish'"),
        ("diffusers_unet2d", {"class_embed_type": "timestep"}, "class_embed_type"),
        ("diffusers_unet2d", {"attn_norm_num_groups": 4}, "attn_norm_num_groups"),
        ("diffusers_unet2d", {"down_block_types": ["DownBlock2D"]}, "needs 2 down_block_types"),
        (
            "diffusers_unet2d",
            {"up_block_types": ["SkipUpBlock2D", "UpBlock2D"]},
            "up_block_types = 'SkipUpBlock2D' is not supported",
        ),
        ("diffusers_unet2d_condition", {"attention_head_dim": 5}, "does not divide"),
        ("diffusers_unet2d_condition", {"attention_head_dim": [2]}, "one number for each level"),
        ("diffusers_unet2d_condition", {"encoder_hid_dim": 3}, "encoder_hid_dim = 3"),
        ("diffusers_unet2d_condition", {"cross_attention_dim": [1, 2]}, "cross_attention_dim"),
    ],
)
def test_settings_that_are_refused_by_name(tmp_path, name, change, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, name, **change)


def test_names_of_older_files(tmp_path):
    """Files of before 2023 say query, key, value and proj_attn."""
    config, tensors, _ = reference("diffusers_unet2d")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def older(name):
        for new, was in old.items():
            name = name.replace(f".{new}.", f".{was}.")
        return name

    before = {older(name): w for name, w in tensors.items()}
    assert before.keys() != tensors.keys()
    model = pretrained.load(write_folder(tmp_path / "old", config, before))
    new = pretrained.load(write_folder(tmp_path / "new", config, tensors))
    chex.assert_trees_all_equal(model.params, new.params)
