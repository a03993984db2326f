"""ControlNets and adapters: their references' numbers, and the base network before training."""

import json

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
from diffjax.models.controlnet import (
    controlled,
    controlnet_for,
    from_zero,
    guess_scales,
    upon,
)
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.naming import count


def read(folder, name):
    """A golden network as loaded, and its arrays in NHWC; what is written is what was read."""
    config, tensors, io = reference(name)
    model = pretrained.load(write_folder(folder / name, config, tensors))
    pretrained.save_safetensors(folder / "out", model)
    back = load_file(folder / "out" / "model.safetensors")
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key], value)
    images = {k: np.moveaxis(a, 1, -1) if a.ndim == 4 else a for k, a in io.items()}
    return model, jax.tree.map(jnp.asarray, images)


def outputs(model, io, **cond):
    with jax.default_matmul_precision("highest"):
        net = jax.jit(lambda *a: model.network(*a, None))
        return net(model.params, io["in_x"], io["in_t"], {"tokens": io["in_context"], **cond})


@pytest.mark.exhaustive
def test_a_published_controlnet(tmp_path):
    model, io = read(tmp_path, "controlnet")
    found = outputs(model, io, image=io["in_image"])
    *down, mid = [0.8 * r for r in found]  # the golden numbers are at that scale
    for i, residual in enumerate(down):
        close(io[f"out_down_{i}"], residual, 2e-5)
    close(io["out_mid"], mid, 2e-5)
    first, last = (guess_scales(len(found))[i] for i in (0, -1))
    close(io["out_guess_down_0"], first * found[0], 2e-5)
    close(io["out_guess_mid"], last * found[-1], 2e-5)
    with pytest.raises(InputError, match=r"takes cond\['image'\] \(2, 64, 64, C\)"):
        outputs(model, io, image=io["in_image"][:, :32])
    with pytest.raises(InputError, match=r"needs cond\['image'\]"):
        outputs(model, io)


@pytest.mark.exhaustive
def test_the_channels_of_a_picture_in_the_other_order(tmp_path):
    config, tensors, io = reference("controlnet")
    config["controlnet_conditioning_channel_order"] = "bgr"
    model = pretrained.load(write_folder(tmp_path, config, tensors))
    io = {k: jnp.asarray(np.moveaxis(a, 1, -1) if a.ndim == 4 else a) for k, a in io.items()}
    found = outputs(model, io, image=io["in_image"][..., ::-1])
    close(io["out_mid"], 0.8 * found[-1], 2e-5)


@pytest.mark.exhaustive
def test_a_unet_takes_residuals(tmp_path):
    model, io = read(tmp_path, "controlnet_unet")
    residuals = [io[f"in_down_{i}"] for i in range(4)] + [io["in_mid"]]
    close(io["out_y"], outputs(model, io, residuals=residuals), 2e-5)
    close(io["out_y_without"], outputs(model, io), 2e-5)

    def raw(residuals):
        jax.eval_shape(lambda: model.network(model.params, io["in_x"], io["in_t"], {
            "tokens": io["in_context"], "residuals": residuals}, None))  # fmt: skip

    with pytest.raises(InputError, match="takes 5 cond"):
        raw(residuals[:4])
    with pytest.raises(InputError, match=r"\[1\]: expected the shape \(2, 8, 8, 32\)"):
        raw([residuals[0], residuals[3], *residuals[2:]])


@pytest.mark.exhaustive
def test_a_unet_takes_the_features_of_an_adapter(tmp_path):
    model, io = read(tmp_path, "unet_t2i_adapter")
    features = [io["in_feature_0"], io["in_feature_1"]]
    close(io["out_y"], outputs(model, io, features=features), 2e-5)
    with pytest.raises(InputError, match="no output of its level has the shape"):
        outputs(model, io, features=[features[0], features[1][:, :2]])
    with pytest.raises(InputError, match="takes as many"):
        outputs(model, io, features=features[:1])


@pytest.mark.exhaustive
def test_a_unet_takes_a_guidance_scale(tmp_path):
    model, io = read(tmp_path, "unet_lcm")
    close(io["out_y"], outputs(model, io, guidance=io["in_w"]), 2e-5)
    with pytest.raises(InputError, match=r"needs cond\['guidance'\]"):
        outputs(model, io)


def small():
    """A U-Net with random weights, its inputs, and a new ControlNet for it."""
    unet = models.adm_unet(8, (1,), 1, num_classes=3)
    x, t, cond = tiny.inputs()
    base = tiny.randomised(unet, x, t, cond)
    module = controlnet_for(unet, hint=(4, 8))
    cond["image"] = jax.random.normal(jax.random.key(5), (3, 16, 16, 1))
    begun = jax.jit(module.init)(jax.random.key(1), x, t, cond)["params"]
    return unet, base, module, from_zero(begun, base), (x, t, cond)


def test_before_training_a_controlnet_changes_no_bit():
    unet, base, module, begun, (x, t, cond) = small()

    @jax.jit
    def net(params, cond, scale):
        both = controlled(network(unet), network(module), scales=scale)
        return both(params, x, t, cond, None)

    plain = tiny.apply(unet, base, x, t, {"label": cond["label"]})
    params = {"base": base, "control": upon(begun, base)}
    np.testing.assert_array_equal(net(params, cond, 1.0), plain)
    for name in begun.keys() & base.keys():
        assert jax.tree.all(jax.tree.map(np.array_equal, params["control"][name], base[name]))
    # Away from zero the picture matters, and the scale 0 is the base again.
    params["control"] = jax.tree.map(lambda a: a + 0.1, params["control"])
    moved = net(params, cond, 1.0)
    other = net(params, cond | {"image": -cond["image"]}, 1.0)
    assert np.abs(moved - plain).max() > 1e-2 < np.abs(moved - other).max()
    np.testing.assert_array_equal(net(params, cond, 0.0), plain)


@pytest.mark.exhaustive
def test_several_controlnets_add_up():
    unet, base, module, begun, (x, t, cond) = small()
    own = jax.tree.map(lambda a: a + 0.1, begun)
    two = controlled(network(unet), network(module), network(module), scales=(0.5, 0.25))
    pictures = cond | {"image": [cond["image"], cond["image"]]}
    found = jax.jit(two)({"base": base, "control": [own, own]}, x, t, pictures, None)
    one = controlled(network(unet), network(module), scales=0.75)
    expected = jax.jit(one)({"base": base, "control": own}, x, t, cond, None)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.exhaustive
def test_the_mean_of_each_residual():
    unet, base, module, begun, (x, t, cond) = small()
    own = jax.tree.map(lambda a: a + 0.1, begun)
    whole = tiny.apply(module, own, x, t, cond)
    pooled = tiny.apply(controlnet_for(unet, hint=(4, 8), pooled=True), own, x, t, cond)
    for a, b in zip(whole, pooled, strict=True):
        np.testing.assert_allclose(a.mean((1, 2), keepdims=True), b, rtol=1e-4, atol=1e-5)
    rest = {"label": cond["label"], "residuals": pooled}
    spread = [jnp.broadcast_to(b, a.shape) for a, b in zip(whole, pooled, strict=True)]
    found = tiny.apply(unet, base, x, t, rest)
    np.testing.assert_array_equal(found, tiny.apply(unet, base, x, t, rest | {"residuals": spread}))


@pytest.mark.exhaustive
def test_number_of_parameters():
    """lllyasviel/sd-controlnet-canny."""
    config = {"_class_name": "ControlNetModel", "cross_attention_dim": 768}
    assert count(shapes(architecture_of(config))) == 361_279_120
    assert json.loads((GOLDEN / "controlnet.json").read_text())["config"]["attention_head_dim"] == 4
