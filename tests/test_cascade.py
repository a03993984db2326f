"""Stable Cascade's U-Net gives its reference's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import reference, write_folder
from safetensors.numpy import load_file
from tiny import close

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.models.cascade import aligned
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.naming import count

CONDITIONS = {
    "vector": ("vector", "clip_text_pooled"),
    "tokens": ("clip_text",),
    "image_embedding": ("clip_img",),
    "image": ("image",),
    "pixels": ("pixels",),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "atol"),
    [  # the first one's times lose digits in float32, in the reference too
        ("stable_cascade_unet", 1e-3),
        ("stable_cascade_decoder", 1e-4),
        ("stable_cascade_resized", 1e-4),
    ],
)
def test_the_reference_s_numbers(tmp_path, name, atol):
    """The prior; a decoder with repeated blocks and patches, by strides and by resizing."""
    config, tensors, io = reference(name)
    model = pretrained.load(write_folder(tmp_path / "in", config, tensors))
    nhwc = {k: np.moveaxis(a, 1, -1) if a.ndim == 4 else a for k, a in io.items()}
    io = jax.tree.map(jnp.asarray, nhwc)
    cond = {
        ours: io[f"in_{name}"]
        for ours, names in CONDITIONS.items()
        for name in names
        if f"in_{name}" in io
    }
    with jax.default_matmul_precision("highest"):
        net = jax.jit(lambda *a: model.network(*a, None))
        close(io["out_y"], net(model.params, io["in_x"], io["in_t"], cond), atol)
    pretrained.save_safetensors(tmp_path / "out", model)
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key], value)
    rest = {k: v for k, v in cond.items() if k != "vector"}
    with pytest.raises(InputError, match="vector"):
        jax.eval_shape(lambda: model.network(model.params, io["in_x"], io["in_t"], rest, None))


def test_resizing_with_the_corners_in_place():
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)
    np.testing.assert_array_equal(aligned(x, (3, 4)), x)
    big = aligned(x, (5, 7))
    np.testing.assert_allclose(big[:, ::2, ::2], x, atol=1e-6)
    np.testing.assert_allclose(big[0, 1, :, 0], (big[0, 0, :, 0] + big[0, 2, :, 0]) / 2, atol=1e-6)
    np.testing.assert_allclose(aligned(big, (3, 4)), x, atol=1e-6)
    assert aligned(x, (1, 1)).shape == (1, 1, 1, 1)


@pytest.mark.exhaustive
def test_number_of_parameters():
    """The prior, stage C."""
    config = {
        "_class_name": "StableCascadeUNet",
        "clip_text_in_channels": 1280,
        "clip_image_in_channels": 768,
        "switch_level": [False],
    }
    assert count(shapes(architecture_of(config))) == 3_589_103_632
    with pytest.raises(InputError, match="needs 2 of num_attention_heads"):
        architecture_of(config | {"num_attention_heads": [32]})
    with pytest.raises(InputError, match="or neither"):
        architecture_of(config | {"clip_image_in_channels": None})
