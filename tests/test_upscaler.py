"""The x4 upscaler: what it draws by sample.py, and what is refused."""

import shutil

import numpy as np
import pytest
from scripts import run
from systems import changed, write_system

from diffjax.errors import InputError
from diffjax.media.image import save_png
from diffjax.pretrained.systems import open_system

LONG = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory):
    """The folder of a tiny one, of pictures of 8 x 8 pixels."""
    return write_system(tmp_path_factory.mktemp("upscaler") / "x4", "sd_upscale")


@pytest.fixture
def spoilt(upscaler, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(upscaler, tmp_path / "spoilt")


def picture(path, level):
    """A picture of one half black."""
    pixels = np.full((12, 12, 3), level, np.uint8)
    pixels[:6] = 0
    save_png(path, pixels)
    return path


@LONG
def test_sample_enlarges_a_picture(upscaler, tmp_path, monkeypatch, capsys):
    def drawn(image, *flags):
        out = tmp_path / "out.npz"
        given = ("--pretrained", upscaler, "--prompt", "a cat", "--steps", 2, "--num", 2)
        given = (*given, "--image", image, "--out", out)
        code, _, told = run(monkeypatch, capsys, "sample", *given, *flags)
        assert code == 0, told
        return np.load(out)["samples"].astype(int)

    one = picture(tmp_path / "a.png", 200)
    first = drawn(one)
    assert first.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(first, drawn(one))
    assert np.abs(first - drawn(picture(tmp_path / "b.png", 60))).max() > 1
    assert np.abs(first - drawn(one, "--noise-level", 300)).max() > 1
    assert np.abs(first - drawn(one, "--seed", 1)).max() > 1


def test_a_small_picture_has_noise_of_its_own_for_each_sample(upscaler, tmp_path):
    """The noise of a sample is that of its number and the seed, in any draw."""
    condition = open_system(upscaler).model.conditions[1]
    assert condition.null is None
    image = picture(tmp_path / "a.png", 200)
    noise = lambda num, **more: condition.flags(num, image=image, **more)["small_noise"]  # noqa: E731
    np.testing.assert_array_equal(noise(3)[:2], noise(2))
    assert np.abs(noise(2)[0] - noise(2)[1]).max() > 0.1
    assert np.abs(noise(1) - noise(1, seed=1)).max() > 0.1
    with pytest.raises(InputError, match="give --image FILE: this model enlarges"):
        condition.flags(1)
    with pytest.raises(InputError, match="--noise-level must be from 0 to 350; got 351"):
        condition.flags(1, image=image, noise_level=351)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: shutil.rmtree(f / "low_res_scheduler"), "without its low_res_scheduler"),
        pytest.param(
            lambda f: changed(f, "unet", in_channels=4),
            "of 4 channels and 1000 noise levels",
            marks=LONG,
        ),
        pytest.param(
            lambda f: changed(f, "unet", num_class_embeds=None),
            "of 7 channels and 0 noise levels",
            marks=LONG,
        ),
    ],
)
def test_what_is_no_upscaler_is_refused(spoilt, spoil, words):
    spoil(spoilt)
    with pytest.raises(InputError, match=words):
        open_system(spoilt)


def test_sample_refuses_without_a_picture(upscaler, tmp_path, monkeypatch, capsys):
    out = ("--out", tmp_path / "x.png")
    flags = ("--pretrained", upscaler, "--prompt", "a cat", "--steps", 2)
    code, _, said = run(monkeypatch, capsys, "sample", *flags, *out)
    assert code == 2
    assert "give --image FILE" in said
    assert not (tmp_path / "x.png").exists()
