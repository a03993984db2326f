"""Published networks through sample.py: their shapes, their guidance, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import reference, write_folder
from PIL import Image
from scripts import run

from diffjax.errors import InputError
from diffjax.pretrained.model import latent_scale, published, with_decoder

NAMES = {
    "adm_unet": "adm",
    "edm_ddpmpp": "edm",
    "dit": "dit",
    "diffusers_unet2d": None,
    "diffusers_autoencoder_kl": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """name -> a folder of a golden network, as `pretrained.load` wants it."""
    made = tmp_path_factory.mktemp("published")

    def make(name):
        config, tensors, _ = reference(name)
        tensors.pop("pos_embed", None)
        named = {"architecture": NAMES[name]} if NAMES[name] else {}
        return write_folder(made / name, named | config, tensors)

    return make


@pytest.mark.parametrize(
    ("name", "shape", "classes", "guided"),
    [
        ("adm_unet", (16, 16, 3), 10, False),
        ("edm_ddpmpp", (16, 16, 3), 10, False),  # trained without label dropout
        ("dit", (8, 8, 4), 10, True),
        ("diffusers_unet2d", (16, 16, 3), 0, False),
    ],
)
def test_a_folder_says_what_is_drawn(folder, name, shape, classes, guided):
    model, params = published(folder(name))
    assert model.example.shape == shape
    assert sum(condition.classes for condition in model.conditions) == classes
    assert (model.guide is not None) == guided
    x = jax.ShapeDtypeStruct((2, *shape), np.float32)
    cond = {"label": jax.ShapeDtypeStruct((2,), np.int32)} if classes else None
    out = jax.eval_shape(lambda x, c: model.denoiser(params)(x, model.schedule.t_max, c), x, cond)
    assert out.x0.shape == (2, *shape)


def test_sample_draws_from_published_weights(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "samples.png"
    flags = ("--num", "2", "--steps", "1", "--out", out)
    code, said, _ = run(
        monkeypatch, capsys, "sample", "--pretrained", folder("diffusers_unet2d"), *flags
    )
    assert code == 0
    assert "weights of" in said
    assert Image.open(out).size[1] >= 16


def test_an_autoencoder_decodes_what_a_latent_was_scaled_from(folder):
    where = folder("diffusers_autoencoder_kl")
    config, _, arrays = reference("diffusers_autoencoder_kl")
    latents = np.moveaxis(arrays["out_mean"], 1, -1) * config["scaling_factor"]
    network, _ = published(folder("dit"))
    model = with_decoder(network._replace(example=latents[0]), where)
    frozen = {name: load() for name, load in model.frozen.items()}
    decoded = model.codec.decode(frozen, jnp.asarray(latents))
    wanted = np.moveaxis(arrays["out_decoded"], 1, -1)
    np.testing.assert_allclose(decoded, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("runs/digits", "--pretrained", "here"), "a workdir or --pretrained"),
        (("--pretrained", "diffusers_autoencoder_kl"), "expected a denoising network"),
        (("--pretrained", "nowhere"), "config.json"),
    ],
)
def test_bad_input_is_a_sentence(folder, monkeypatch, capsys, flags, says):
    flags = [folder(flag) if flag in NAMES else flag for flag in flags]
    code, _, err = run(monkeypatch, capsys, "sample", *flags)
    assert code == 2
    assert says in err


def test_an_autoencoder_s_latents_have_a_mean_and_std_for_each_channel():
    """diffusers decodes z std / factor + mean."""
    scale = latent_scale(
        {"scaling_factor": 0.5, "latents_mean": [1.0, -1.0], "latents_std": [2.0, 4.0]}
    )
    z = jnp.array([[[[3.0, 5.0]]]])
    np.testing.assert_allclose(scale.to_autoencoder(z)[0, 0, 0], [13.0, 39.0])
    np.testing.assert_allclose(scale.to_diffusion(scale.to_autoencoder(z)), z)
    for bad in ({"latents_std": [1.0]}, {"latents_mean": [1.0, 2.0], "latents_std": [1.0]}):
        with pytest.raises(InputError, match="latents_mean and latents_std"):
            latent_scale(bad)
