"""unCLIP: what it draws by sample.py, and what is refused."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import run
from systems import changed, write_network, write_system

from diffjax.errors import InputError
from diffjax.pretrained.systems import open_system
from diffjax.pretrained.unclip_enlarging import keys_of

LONG = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def unclip(tmp_path_factory):
    """The folder of a tiny one, of pictures of 8 x 8 pixels enlarged to 16 x 16."""
    return write_system(tmp_path_factory.mktemp("unclip") / "unclip", "unclip")


@pytest.fixture(scope="module")
def system(unclip):
    """It, opened."""
    return open_system(unclip)


@pytest.fixture
def spoilt(unclip, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(unclip, tmp_path / "spoilt")


@LONG
def test_sample_draws_from_a_prompt(unclip, tmp_path, monkeypatch, capsys):
    def drawn(*flags):
        out = tmp_path / "out.npz"
        given = ("--pretrained", unclip, "--steps", 3, "--num", 2, "--out", out)
        code, said, told = run(monkeypatch, capsys, "sample", *given, *flags)
        assert code == 0, told
        assert "guidance scale 8" in said
        return np.load(out)["samples"].astype(int)

    cat = drawn("--prompt", "a cat")
    assert cat.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(cat, drawn("--prompt", "a cat"))
    for other in (("two dogs!",), ("a cat", "--prior-guidance-scale", 1)):
        assert np.abs(cat - drawn("--prompt", *other)).max() > 1


def test_every_null_has_no_picture(system):
    """The learned embedding is in its place under a negative prompt too."""
    for unwanted in (None, ["blurry"]):
        raw = system.raw(["a cat"], unwanted)
        assert (raw["image_given"], raw["null_image_given"]) == (1, 0)
    assert system.model.conditions[1].null is None


def test_the_noise_of_an_enlargement_is_that_of_its_picture():
    x = jax.random.normal(jax.random.key(1), (50, 8, 8, 3))
    bits = lambda x: jax.random.key_data(keys_of(x))  # noqa: E731
    one = bits(x)
    np.testing.assert_array_equal(one, bits(x * (1 + 1e-7)))
    np.testing.assert_array_equal(one[7:8], bits(x[7:8]))
    assert len(np.unique(np.asarray(one), axis=0)) == 50


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: shutil.rmtree(f / "prior_scheduler"), "without its prior_scheduler"),
        (lambda f: shutil.rmtree(f / "text_proj"), "without its text_proj"),
        pytest.param(
            lambda f: changed(f, "prior", embedding_dim=24),
            "states are of width 32; the prior reads 24",
            marks=LONG,
        ),
        pytest.param(
            lambda f: changed(f, "text_proj", cross_attention_dim=16),
            "tokens are of width 16; the decoder reads 24",
            marks=LONG,
        ),
        pytest.param(
            lambda f: changed(f, "super_res_last", in_channels=3),
            "super_res_last .* 3 channels",
            marks=LONG,
        ),
        pytest.param(
            lambda f: changed(f, "decoder", only_cross_attention=True),
            "the decoder of .*only_cross",
            marks=LONG,
        ),
    ],
)
def test_a_spoilt_unclip_is_refused(spoilt, spoil, words):
    spoil(spoilt)
    with pytest.raises(InputError, match=words):
        open_system(spoilt)


def test_what_unclip_does_not_do_is_refused(unclip, system, tmp_path):
    write_network(tmp_path / "control", "sd_controlnet")
    with pytest.raises(InputError, match="ControlNets and IP-Adapters are for the U-Nets"):
        open_system(unclip, controlnet=[(tmp_path / "control", 1.0)])
    with pytest.raises(InputError, match="draws from text alone"):
        system.model.codec.encode({}, jnp.zeros((1, 16, 16, 3)))
    with pytest.raises(InputError, match="takes 2 steps or more; got 1"):
        system.model.sampling.grid(system.model.schedule, 1)


@LONG
def test_sample_refuses_with_a_sentence(unclip, tmp_path, monkeypatch, capsys):
    out = tmp_path / "x.png"
    for flags, words in (
        (("--steps", 1), "takes 2 steps or more; got 1"),
        (("--width", 32), "draws 16 x 16 pixels; got --width 32"),
    ):
        given = ("--pretrained", unclip, "--prompt", "a cat", *flags, "--out", out)
        code, _, said = run(monkeypatch, capsys, "sample", *given)
        assert code == 2
        assert words in " ".join(said.split())
        assert not out.exists()
