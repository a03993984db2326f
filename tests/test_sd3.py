"""Stable Diffusion 3's transformer: diffusers' numbers, counts and weights."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import reference, write_folder
from safetensors.numpy import load_file
from tiny import close

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.models.position import cells, centred_sincos_2d, sincos_2d
from diffjax.parameterization import make_denoiser
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.model import published
from diffjax.pretrained.naming import count

# With and without norms of queries and keys, and with a second attention.
GOLDEN = (
    "diffusers_sd3",
    "diffusers_sd3_plain",
    pytest.param("diffusers_sd3_dual", marks=pytest.mark.exhaustive),
)
KIND = {"_class_name": "SD3Transformer2DModel"}


def golden(name, folder):
    """The golden network as loaded, its tensors, and its inputs and output in NHWC."""
    config, tensors, io = reference(name)
    model = pretrained.load(write_folder(folder / "in", config, tensors))
    x, y = (jnp.asarray(io[name].transpose(0, 2, 3, 1)) for name in ("in_x", "out_y"))
    cond = {name: jnp.asarray(io[f"in_{name}"]) for name in ("tokens", "vector")}
    return model, tensors, (x, jnp.asarray(io["in_t"]), cond, y), io["pos_embed"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_reference_s_numbers_and_tensors(name, tmp_path):
    """Images that are not square, of fewer patches than there are positions."""
    model, tensors, (x, t, cond, y), positions = golden(name, tmp_path)
    with jax.default_matmul_precision("highest"):
        close(y, jax.jit(model.network)(model.params, x, t, cond, None), 2e-5)
    pretrained.save_safetensors(tmp_path / "out", model)
    back = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_allclose(back.pop("pos_embed.pos_embed"), positions, atol=1e-6)
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key], value)
    again = pretrained.load(tmp_path / "out")
    chex.assert_trees_all_equal(again.params, model.params)


def test_the_denoiser_goes_back_along_the_velocity(tmp_path):
    """x_t = (1 - t) x0 + t eps and v = eps - x0, so that x0 = x_t - t v."""
    model, _, (x, t, cond, y), _ = golden("diffusers_sd3", tmp_path)
    x0 = jax.jit(make_denoiser(*model[:4]))(x, t / 1000, cond).x0
    close(x - (t / 1000)[:, None, None, None] * y, x0, 2e-5)


SIZES = {
    "3 medium": (24, 24, None, 0, 2_028_328_000),
    "3.5 large": (38, 38, "rms_norm", 0, 8_056_627_520),
    "3.5 medium": (24, 24, "rms_norm", 13, 2_243_171_520),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("size", SIZES)
def test_number_of_parameters(size):
    depth, heads, qk_norm, dual, expected = SIZES[size]
    sizes = {
        "num_layers": depth,
        "num_attention_heads": heads,
        "caption_projection_dim": 64 * heads,
        "dual_attention_layers": list(range(dual)),
    }
    config = KIND | sizes | {"qk_norm": qk_norm, "pos_embed_max_size": 192}
    assert count(shapes(architecture_of(config))) == expected


def test_positions_of_the_whole_grid_and_of_its_middle():
    whole = centred_sincos_2d(cells(6, 6), 8, 6).reshape(6, 6, 8)
    np.testing.assert_array_equal(whole.reshape(36, 8), sincos_2d(cells(6, 6), 8))
    middle = centred_sincos_2d(cells(2, 4), 8, 6).reshape(2, 4, 8)
    np.testing.assert_array_equal(middle, whole[2:4, 1:5])
    with pytest.raises(InputError, match="6 x 6 patches; got"):
        centred_sincos_2d(cells(7, 2), 8, 6)


def test_what_is_not_built_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"dual_attention_layers = \(0, 2\)"):
        architecture_of(KIND | {"dual_attention_layers": [0, 2]})
    with pytest.raises(InputError, match=r"num_layer'; did you mean 'num_layers'"):
        architecture_of(KIND | {"num_layer": 2})
    model, _, (x, t, cond, _), _ = golden("diffusers_sd3_plain", tmp_path)
    with pytest.raises(InputError, match="vector"):
        model.network(model.params, x, t, {"tokens": cond["tokens"]}, None)
    with pytest.raises(InputError, match="text encoder"):
        published(tmp_path / "in")
