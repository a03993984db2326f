"""ControlNets of transformers: their references' numbers, and the base before training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from nets import GOLDEN, reference, write_folder
from safetensors.numpy import load_file
from tiny import close

from diffjax import models, pretrained
from diffjax.errors import InputError
from diffjax.models import network
from diffjax.models.controlnet import controlled, from_zero, upon
from diffjax.models.stacking import stack_blocks, unstack_blocks
from diffjax.models.transformer_control import transformer_controlnet
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.naming import count


def read(folder, name):
    """A golden network as loaded, with its arrays in NHWC; what is written is what was read."""
    config, tensors, io = reference(name)
    model = pretrained.load(write_folder(folder / name, config, tensors))
    pretrained.save_safetensors(folder / "out", model)
    back = load_file(folder / "out" / "model.safetensors")
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key], value)
    images = {k: np.moveaxis(a, 1, -1) if a.ndim == 4 else a for k, a in io.items()}
    return model, jax.tree.map(jnp.asarray, images)


def run(model, x, t, cond):
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda *a: model.network(*a, None))(model.params, x, t, cond)


@pytest.mark.exhaustive
def test_sd3(tmp_path):
    model, io = read(tmp_path, "sd3_controlnet")
    cond = {"tokens": io["in_context"], "vector": io["in_pooled"], "image": io["in_image"]}
    made = run(model, io["in_x"], io["in_t"], cond)
    for i, residual in enumerate(made):
        close(io[f"out_block_{i}"], 0.7 * residual, 2e-5)  # the scale of the golden numbers
    with pytest.raises(InputError, match=r"takes cond\['image'\] \(2, 8, 8, C\)"):
        run(model, io["in_x"], io["in_t"], cond | {"image": io["in_image"][:, :4]})


@pytest.mark.exhaustive
def test_flux(tmp_path):
    model, io = read(tmp_path, "flux_controlnet")
    names = {"tokens": "context", "vector": "pooled", "guidance": "guidance", "image": "cond"}
    cond = {ours: io[f"in_{theirs}"] for ours, theirs in names.items()}
    cond["image_ids"] = io["in_img_ids"]
    (double,), (single,) = run(model, io["in_x"], io["in_t"], cond)
    close(io["out_block_0"], 0.7 * double, 2e-5)
    close(io["out_single_0"], 0.7 * single, 2e-5)
    with pytest.raises(InputError, match="FLUX ControlNet takes cond"):
        run(model, io["in_x"], io["in_t"], cond | {"image": io["in_cond"][:, :9]})


@pytest.mark.exhaustive
def test_what_takes_residuals_adds_them_where_diffusers_does(tmp_path):
    with np.load(GOLDEN / "transformer_residuals.npz") as file:
        given = {k: jnp.asarray(a) for k, a in file.items()}
    model, io = read(tmp_path, "diffusers_sd3")
    cond = {"tokens": io["in_tokens"], "vector": io["in_vector"]}
    found = run(model, io["in_x"], io["in_t"], cond | {"residuals": list(given["sd3_residuals"])})
    close(given["sd3_y"].transpose(0, 2, 3, 1), found, 2e-5)
    with pytest.raises(InputError, match="takes 1 to 3"):
        run(model, io["in_x"], io["in_t"], cond | {"residuals": [given["sd3_residuals"][0]] * 4})
    model, io = read(tmp_path, "flux_transformer")
    cond = {"tokens": io["in_context"], "vector": io["in_pooled"], "guidance": io["in_guidance"]}
    cond["image_ids"] = io["in_img_ids"]
    both = {"residuals": (list(given["flux_double"]), list(given["flux_single"]))}
    close(given["flux_y"], run(model, io["in_x"], io["in_t"], cond | both), 2e-5)
    scanned = model.module.clone(scan_blocks=True, remat=True)
    like = jax.eval_shape(scanned.init, jax.random.key(0), io["in_x"], io["in_t"], cond)["params"]
    form = model._replace(params=stack_blocks(model.params, like), network=network(scanned))
    close(given["flux_y"], run(form, io["in_x"], io["in_t"], cond | both), 2e-5)
    wrong = (list(given["flux_double"][:, :, :4]), [])
    with pytest.raises(InputError, match="this FLUX takes up to 2"):
        run(model, io["in_x"], io["in_t"], cond | {"residuals": wrong})


@pytest.mark.exhaustive
def test_before_training_a_controlnet_of_dit_changes_no_bit():
    module = models.DiT(width=8, depth=3, heads=2, num_classes=3, learn_sigma=False)
    check_zero(module, *tiny.inputs())


@pytest.mark.exhaustive
def test_before_training_a_controlnet_of_mmdit_changes_no_bit():
    x, t, cond = tiny.inputs()
    tokens = jax.random.normal(jax.random.key(2), (3, 4, 6))
    module = models.MMDiT(width=8, depth=3, heads=2, num_classes=3)
    check_zero(module, x, t, cond | {"tokens": tokens})


def check_zero(module, x, t, cond):
    base = tiny.randomised(module, x, t, cond)
    control = transformer_controlnet(module, 2)
    both = cond | {"image": jax.random.normal(jax.random.key(3), (*x.shape[:3], 1))}
    own = jax.jit(control.init)(jax.random.key(1), x, t, both)["params"]
    params = {"base": base, "control": upon(from_zero(own, base), base)}
    net = jax.jit(controlled(network(module), network(control)))
    plain = tiny.apply(module, base, x, t, cond)
    np.testing.assert_array_equal(net(params, x, t, both, None), plain)
    params["control"] = tiny.randomised(control, x, t, both)
    moved = net(params, x, t, both, None)
    other = net(params, x, t, both | {"image": -both["image"]}, None)
    assert np.abs(moved - plain).max() > 1e-2 < np.abs(moved - other).max()
    with pytest.raises(InputError, match="copies 1 to 3"):
        transformer_controlnet(module, 4)


@pytest.mark.exhaustive
def test_residuals_under_scanned_and_recomputed_blocks():
    module = models.DiT(width=8, depth=4, heads=2, num_classes=3, learn_sigma=False)
    x, t, cond = tiny.inputs()
    base = tiny.randomised(module, x, t, cond)
    residuals = jax.random.normal(jax.random.key(4), (2, 3, 16, 8))
    cond = cond | {"residuals": list(residuals)}
    plain = tiny.apply(module, base, x, t, cond)
    scanned = module.clone(scan_blocks=True, remat=True)
    like = jax.eval_shape(scanned.init, jax.random.key(0), x, t, cond)["params"]
    stacked = stack_blocks(base, like)
    np.testing.assert_allclose(tiny.apply(scanned, stacked, x, t, cond), plain, atol=2e-5)
    assert jax.tree.all(jax.tree.map(np.array_equal, unstack_blocks(stacked), base))
    # Each of the two is read by two of the four blocks, one after the other.
    twice = tiny.apply(module, base, x, t, cond | {"residuals": list(residuals.repeat(2, 0))})
    np.testing.assert_allclose(twice, plain, atol=1e-6)


@pytest.mark.exhaustive
def test_number_of_parameters():
    """A ControlNet of half of Stable Diffusion 3 medium's blocks, as diffusers counts it."""
    config = {"_class_name": "SD3ControlNetModel", "num_layers": 12, "num_attention_heads": 24}
    config |= {"caption_projection_dim": 1536, "pos_embed_max_size": 192}
    assert count(shapes(architecture_of(config))) == 1_062_855_168
