"""Adapters joined to whole systems: what they draw by sample.py, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scripts import run
from systems import GOLDEN, write_json, write_network, write_system

from diffjax.errors import InputError
from diffjax.media.image import save_png
from diffjax.pretrained.adapters import control_images
from diffjax.pretrained.image_prompt import clip_pixels
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
    condition = open_system(sd, controlnet=[(control, 1.0)]).model.conditions[1]
    assert condition.null is None
    raw = {"control_image": np.asarray([[[[-1.0, 0.0, 1.0]]]])}
    np.testing.assert_array_equal(condition.encode({}, raw)["image"], [[[[0, 0.5, 1]]]])
    with pytest.raises(InputError, match="give --control-image FILE"):
        condition.flags(1)


def test_each_controlnet_has_a_picture(tmp_path):
    condition = control_images((16, 16), [3, 3])
    assert [*condition.example] == ["control_image_0", "control_image_1"]
    edges = picture(tmp_path / "a.png")
    raw = condition.flags(3, control_image=[edges, picture(tmp_path / "b.png", 90)])
    one, other = condition.encode({}, raw)["image"]
    assert one.shape == other.shape == (3, 16, 16, 3)
    assert one.max() > other.max() > other.min() == 0
    with pytest.raises(InputError, match="2 of them, one for each ControlNet; got 1"):
        condition.flags(1, control_image=[edges])


def write_second(folder):
    """The folder of another ControlNet."""
    write_network(folder / "second", "sd_controlnet_2")
    return folder / "second"


@LONG
def test_sample_draws_for_two_control_images(sd, control, tmp_path, monkeypatch, capsys):
    draw = lambda *flags: drawn(sd, tmp_path, monkeypatch, capsys, *flags)  # noqa: E731
    a, b, two = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", 90), write_second(tmp_path)
    led = draw("--controlnet", f"{control}:0.7", f"{two}:0.4", "--control-image", a, b)
    again = ("--controlnet", f"{control}:0.7", "--controlnet", f"{two}:0.4")
    same = draw(*again, "--control-image", a, "--control-image", b)
    one = draw("--controlnet", f"{control}:0.7", "--control-image", a)
    off = draw("--controlnet", f"{control}:0.7", f"{two}:0", "--control-image", a, b)
    np.testing.assert_array_equal(led, same)
    assert np.abs(one - off).max() <= 1
    assert np.abs(led - one).max() > 1


def changed(folder, **entries):
    """A network's folder with other settings."""
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | entries)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        pytest.param(
            {"block_out_channels": [32, 96]}, "is for another U-Net: its down_", marks=LONG
        ),
        ({"cross_attention_dim": 40}, r"is for another U-Net: its .*kv.* \(40, "),
        ({"conditioning_embedding_out_channels": [8, 8, 8]}, "for 4 pixels a latent; .* has 2"),
        pytest.param({"conditioning_embedding": 1}, "no argument 'conditioning_em", marks=LONG),
    ],
)
def test_a_controlnet_for_another_network_is_refused(sd, control, entries, words):
    changed(control, **entries)
    with pytest.raises(InputError, match=words):
        open_system(sd, controlnet=[(control, 1.0)])


def test_what_is_no_controlnet_is_refused(sd):
    with pytest.raises(InputError, match="is a UNet2DConditionModel, for a UNet2DConditionModel"):
        open_system(sd, controlnet=[(sd / "unet", 1.0)])


@LONG
def test_a_controlnet_for_a_workdir_or_a_network_alone(sd, control, tmp_path, monkeypatch, capsys):
    code, _, said = run(monkeypatch, capsys, "sample", "runs/x", "--controlnet", control)
    assert code == 2
    assert "--controlnet: only with --pretrained" in said
    shutil.copytree(sd / "vae", tmp_path / "vae")
    flags = ("--pretrained", tmp_path / "vae", "--controlnet", control)
    code, _, said = run(monkeypatch, capsys, "sample", *flags)
    assert code == 2
    assert "which LoRA files, adapters and bfloat16" in " ".join(said.split())


@LONG
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


# --- IP-Adapter -------------------------------------------------------------------------


@pytest.fixture
def pictured(tmp_path):
    """The folder of an IP-Adapter's file and its vision encoder."""
    return write_system(tmp_path / "pictured", "sd_ip_adapter")


@LONG
def test_sample_draws_for_two_pictures(sd, control, pictured, tmp_path, monkeypatch, capsys):
    """The IP-Adapter of another folder, with a ControlNet; at the scale 0 neither is there."""
    draw = lambda *flags: drawn(sd, tmp_path, monkeypatch, capsys, *flags)  # noqa: E731
    file = pictured / "ip_adapter.safetensors"
    images = ("--ip-image", picture(tmp_path / "a.png"))
    images += "--control-image", picture(tmp_path / "b.png")
    off = draw("--ip-adapter", f"{file}:0", "--controlnet", f"{control}:0", *images)
    led = draw("--ip-adapter", file, "--controlnet", f"{control}:0", *images)
    both = draw("--ip-adapter", file, "--controlnet", control, *images)
    assert np.abs(off - draw()).max() <= 1
    assert np.abs(led - off).max() > 5 < np.abs(both - led).max()


@LONG
def test_the_null_of_a_picture_is_an_embedding_of_zeros(sd, pictured):
    model = open_system(sd, ip_adapter=(pictured / "ip_adapter.safetensors", 0.6)).model
    condition = model.conditions[1]
    frozen = {k: jax.tree.map(np.asarray, model.frozen[k]()) for k in condition.own}
    null = {k: a[None] for k, a in condition.null.items()}
    tokens = condition.encode(frozen, null)["image_tokens"]
    proj, norm = (frozen["image_projection"][name] for name in ("proj", "norm"))
    rows = proj["bias"].reshape(4, 32)
    rows = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(tokens[0], rows * norm["scale"] + norm["bias"], atol=1e-4)
    with pytest.raises(InputError, match="give --ip-image FILE"):
        condition.flags(1)


@pytest.mark.parametrize("name", ["wide", "tall", "small"])
def test_pictures_as_clip_is_given_them(name, tmp_path):
    """transformers 4.57.6's CLIPImageProcessor."""
    with np.load(GOLDEN / "clip_pixels.npz") as file:
        save_png(tmp_path / "a.png", file[f"{name}/picture"])
        found = clip_pixels(tmp_path / "a.png", 16)
        np.testing.assert_allclose(found, file[f"{name}/pixels"], atol=1e-6)


def without_encoder(folder):
    shutil.rmtree(folder / "image_encoder")


def another_encoder(folder):
    without_encoder(folder)
    shutil.copytree(folder / "text_encoder", folder / "image_encoder")


def wider_embedding(folder):
    file = folder / "ip_adapter.safetensors"
    weight = {"image_proj.proj.weight": np.zeros((128, 24), np.float32)}
    save_file(load_file(file) | weight, file)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_encoder, "needs the vision encoder"),
        pytest.param(another_encoder, "is not a CLIP vision encoder", marks=LONG),
        pytest.param(wider_embedding, "embedding of width 24; its .* makes 20", marks=LONG),
    ],
)
def test_a_spoilt_ip_adapter_is_refused(sd, pictured, spoil, words):
    spoil(pictured)
    with pytest.raises(InputError, match=words):
        open_system(sd, ip_adapter=(pictured / "ip_adapter.safetensors", 1.0))
