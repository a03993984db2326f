"""Adapters joined to whole systems: what they draw by sample.py, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from scripts import run
from systems import write_json, write_network, write_system

from diffjax.errors import InputError
from diffjax.media.image import save_png
from diffjax.pretrained.systems import open_system

LONG = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    """The folder of a tiny Stable Diffusion 1."""
    return write_system(tmp_path_factory.mktemp("systems") / "sd", "sd_ddim")


@pytest.fixture
def control(tmp_path):
    """The folder of a ControlNet for it."""
    write_network(tmp_path / "control", "sd_controlnet")
    return tmp_path / "control"


def picture(path, level=200):
    """A picture of one half black."""
    pixels = np.full((20, 30, 3), level, np.uint8)
    pixels[:10] = 0
    save_png(path, pixels)
    return path


def drawn(sd, tmp_path, monkeypatch, capsys, *flags):
    """The samples that sample.py draws of one prompt."""
    out = tmp_path / "out.npz"
    flags = ("--pretrained", sd, "--prompt", "a cat", "--steps", 2, *flags)
    code, _, told = run(monkeypatch, capsys, "sample", *flags, "--num", 1, "--out", out)
    assert code == 0, told
    with np.load(out) as file:
        return file["samples"].astype(int)


# --- ControlNet -------------------------------------------------------------------------


@LONG
def test_sample_draws_for_a_control_image(sd, control, tmp_path, monkeypatch, capsys):
    draw = lambda *flags: drawn(sd, tmp_path, monkeypatch, capsys, *flags)  # noqa: E731
    image = "--control-image", picture(tmp_path / "edges.png")
    plain = draw()
    led = draw("--controlnet", control, *image)
    off = draw("--controlnet", f"{control}:0", *image)
    other = draw("--controlnet", control, "--control-image", picture(tmp_path / "b.png", 90))
    assert np.abs(off - plain).max() <= 1
    assert np.abs(led - plain).max() > 5 < np.abs(led - other).max()


def test_a_control_image_is_kept_under_guidance(sd, control):
    condition = open_system(sd, controlnet=(control, 1.0)).model.conditions[1]
    assert condition.null is None
    raw = {"control_image": np.asarray([[[[-1.0, 0.0, 1.0]]]])}
    np.testing.assert_array_equal(condition.encode({}, raw)["image"], [[[[0, 0.5, 1]]]])
    with pytest.raises(InputError, match="give --control-image FILE"):
        condition.flags(1)


def changed(folder, **entries):
    """A network's folder with other settings."""
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | entries)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"block_out_channels": [32, 96]}, "is for another U-Net: its down_"),
        ({"cross_attention_dim": 40}, r"is for another U-Net: its .*kv.* \(40, "),
        ({"conditioning_embedding_out_channels": [8, 8, 8]}, "for 4 pixels a latent; .* has 2"),
        ({"conditioning_embedding": 1}, "no argument 'conditioning_embedding'"),
    ],
)
def test_a_controlnet_for_another_network_is_refused(sd, control, entries, words):
    changed(control, **entries)
    with pytest.raises(InputError, match=words):
        open_system(sd, controlnet=(control, 1.0))


def test_what_is_no_controlnet_is_refused(sd):
    with pytest.raises(InputError, match="is a UNet2DConditionModel, for a UNet2DConditionModel"):
        open_system(sd, controlnet=(sd / "unet", 1.0))


@LONG
def test_a_controlnet_for_a_workdir_or_a_network_alone(sd, control, tmp_path, monkeypatch, capsys):
    code, _, said = run(monkeypatch, capsys, "sample", "runs/x", "--controlnet", control)
    assert code == 2
    assert "--controlnet: only with --pretrained" in said
    shutil.copytree(sd / "vae", tmp_path / "vae")
    flags = ("--pretrained", tmp_path / "vae", "--controlnet", control)
    code, _, said = run(monkeypatch, capsys, "sample", *flags)
    assert code == 2
    assert "adapters are for" in said


def test_a_controlnet_reads_none_of_what_its_unet_alone_reads(sd, control):
    """Its network is called without the tokens of an IP-Adapter, which it would refuse."""
    from diffjax.pretrained.adapters import of_shared, open_alone

    own = open_alone(control)
    x = np.zeros((1, 8, 8, 4), np.float32)
    cond = {"tokens": np.zeros((1, 16, 32), np.float32), "image": np.zeros((1, 16, 16, 3))}
    call = lambda network, more: jax.eval_shape(  # noqa: E731
        lambda p: network(p, x, np.zeros(1, np.float32), cond | more, None), own.like
    )
    more = {"image_tokens": cond["tokens"]}
    with pytest.raises(InputError, match="does not use"):
        call(own.network.network, more)
    assert len(call(of_shared(own.network.network), more)) == len(call(own.network.network, {}))
