"""U-ViT's published weights: the reference's numbers, counts and tensors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import reference, write_folder
from safetensors.numpy import load_file
from tiny import close

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.parameterization import make_denoiser
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.model import published
from diffjax.pretrained.naming import count

GOLDEN = ("uvit", "uvit_latent", "uvit_text")  # of nothing, of a label without a last conv, of text


def golden(name, folder):
    """The golden network as loaded, its tensors, and its inputs and output in NHWC."""
    config, tensors, io = reference(name)
    model = pretrained.load(write_folder(folder / "in", config, tensors))
    x, y = (jnp.asarray(io[name].transpose(0, 2, 3, 1)) for name in ("in_x", "out_y"))
    cond = {k: jnp.asarray(io[f"in_{k}"]) for k in ("label", "tokens") if f"in_{k}" in io}
    return model, tensors, (x, jnp.asarray(io["in_t"]), cond or None, y)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_reference_s_numbers_and_tensors(name, tmp_path):
    model, tensors, (x, t, cond, y) = golden(name, tmp_path)
    with jax.default_matmul_precision("highest"):
        close(y, jax.jit(model.network)(model.params, x, t, cond, None), 2e-5)
    pretrained.save_safetensors(tmp_path / "out", model)
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize(("name", "steps"), [("uvit", 999), ("uvit_text", 1000)])
def test_the_denoiser_is_given_the_reference_s_times(name, steps, tmp_path):
    """x_t = alpha x0_hat + sigma eps, where eps is the reference's output at its own time."""
    model, _, (x, t, cond, y) = golden(name, tmp_path)
    x0 = jax.jit(make_denoiser(*model[:4]))(x, t / steps, cond).x0
    alpha, sigma = (f(t / steps)[:, None, None, None] for f in model.schedule[:2])
    close(x, alpha * x0 + sigma * y, 1e-4)


SIZES = {
    "CIFAR-10 small": ("uvit", {"embed_dim": 512, "num_heads": 8}, 44_255_328),
    "ImageNet 256 large": (
        "uvit_latent",
        {"embed_dim": 1024, "num_heads": 16, "depth": 20, "in_chans": 4, "num_classes": 1001},
        286_763_172,
    ),
    "MS-COCO small": ("uvit_text", {"embed_dim": 512, "num_heads": 8, "in_chans": 4}, 44_692_644),
}


@pytest.mark.parametrize("size", SIZES)
def test_number_of_parameters(size):
    name, sizes, expected = SIZES[size]
    config = {"architecture": name, "img_size": 32, "patch_size": 2, **sizes}
    assert count(shapes(architecture_of(config))) == expected


def test_sampling_from_a_folder_knows_size_and_labels(tmp_path):
    golden("uvit_latent", tmp_path)
    model, _ = published(tmp_path / "in")
    classes = model.conditions[0].classes
    assert (model.example.shape, classes) == ((8, 8, 4), 3)  # of 4 labels the last is null
    assert model.guide is not None
    golden("uvit_text", tmp_path)
    with pytest.raises(InputError, match="text encoder"):
        published(tmp_path / "in")


def test_what_is_not_built_is_refused():
    with pytest.raises(InputError, match="mlp_time_embed = True is not supported"):
        architecture_of({"architecture": "uvit", "mlp_time_embed": True})
