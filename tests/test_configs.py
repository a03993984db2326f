"""Every shipped config, shrunk by its own flags: trained, stopped, resumed and sampled."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import ROOT, run
from systems import write_clip

from diffjax.run import config

UNET = ("--channels", 8, "--multipliers", 1, "--blocks", 1)
LATENTS = ("--width", 16, "--depth", 1, "--heads", 2, "--size", 8)
STUDENTS = {
    f"digits_{name}": UNET
    for name in (
        *("consistency", "ctm", "dmd2", "guidance", "lcm", "moment_matching", "reflow"),
        *("progressive", "scm", "mean_flow", "imf", "soflow", "shortcut", "imm", "ict", "ect"),
        *("drifting", "draft", "policy_gradient", "negative_aware"),
    )
}
FASHION = (*UNET, "--attention-levels")
FASHION_STUDENTS = {f"fashion_{name}": FASHION for name in ("consistency", "shortcut", "ict")}
STUDENTS |= FASHION_STUDENTS
SHRUNK = STUDENTS | {
    "digits": UNET,
    "fashion_mnist": FASHION,
    "cifar10_ddpm": ("--channels", 32, "--multipliers", 1, "--blocks", 1),
    "cifar10_edm": ("--channels", 8, "--blocks", 1),
    "imagenet256_dit": LATENTS,
    "imagenet256_mean_flow": LATENTS,
    "imagenet256_scm": LATENTS,
    "edges_controlnet": UNET,
    "emoji_autoencoder": ("--channels", 8, 8, "--size", 16),
    "emoji_cascade": UNET,
    "emoji_latent": (*UNET, "--attention-levels"),
    "emoji_pixels": (*UNET, "--attention-levels"),
    "emoji_pixels_64": (*UNET, "--attention-levels"),
    "lora": ("--rank", 2, "--data", "same"),
    "dreambooth": ("--rank", 2),
    "images": ("--size", 8, "--width", 8, "--blocks", 1, "--conditional"),
}
PROMPTED = ("emoji_latent", "emoji_pixels", "emoji_pixels_64", "emoji_cascade", "dreambooth")
NOT_TRAINED = {"textual_inversion"}  # wants MiniLM's weights; see tests/test_textual_inversion.py
LINES = {"images": 75, "edges_controlnet": 65}  # others 45


def sources(name, tmp_path):
    """Flags or a stand-in for data that this machine has not prepared."""
    rng = np.random.default_rng(0)
    if name.startswith("imagenet256"):
        x, label = rng.standard_normal((16, 8, 8, 4)), rng.integers(0, 1000, 16)
        np.savez(tmp_path / "latents.npz", x=x, label=label)
        return ("--latents-path", tmp_path / "latents.npz")
    if name in STUDENTS:
        return ("--teacher", tmp_path / "base")
    if name in ("edges_controlnet", "lora"):
        return ("--base", tmp_path / "base")
    if name == "dreambooth":
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "pictures/1.png")
        np.savez(tmp_path / "prior.npz", samples=rng.integers(0, 256, (8, 16, 16, 3), np.uint8))
        given = ("--pictures", tmp_path / "pictures", "--prior", tmp_path / "prior.npz")
        return ("--base", tmp_path / "base", *given)
    if name == "emoji_latent":
        clip = write_clip(tmp_path / "clip")
        return ("--text", clip, "--text-length", 8, "--autoencoder", tmp_path / "base")
    if name in ("emoji_pixels", "emoji_pixels_64", "emoji_cascade"):
        clip = tmp_path / "clip" / "text_encoder"
        texts = ("--text", clip if clip.is_dir() else write_clip(clip.parent), "--text-length", 8)
        return texts if name != "emoji_cascade" else (*texts, "--base", tmp_path / "base")
    if name == "images":
        for i in range(8):
            folder = tmp_path / "photos" / "ab"[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
        return ("--data", tmp_path / "photos")
    return ()


def with_few_emoji(monkeypatch, tmp_path):
    """A stand-in for the prepared emoji."""
    x = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    forms = np.array([[f"cat {i}", "dog"] for i in range(16)])
    np.savez(tmp_path / "emoji.npz", x=x, caption=forms[:, 0], captions=forms)
    from diffjax import data

    few = lambda split="train", size=64, where=None: data.array(tmp_path / "emoji.npz", size)  # noqa: E731
    monkeypatch.setattr(data, "emoji", few)
    monkeypatch.setattr(data, "emoji_folder", lambda where=None: tmp_path)


def with_latents(monkeypatch, capsys, tmp_path):
    """An autoencoder that was trained for a step, and its latents."""
    from diffjax.latents import cache

    base = ("configs/emoji_autoencoder.py", "--workdir", tmp_path / "base", "--channels", 8, 8)
    steps = ("--batch-size", 8, "--steps", 1, "--sample-every", 0)
    code, _, err = run(monkeypatch, capsys, "train", *base, *steps)
    assert code == 0, err
    cache.main([str(tmp_path / "base"), "--compilation-cache", "off"])


def with_first_stage(monkeypatch, capsys, tmp_path):
    """The first stage of a cascade, trained for a step."""
    base = ("configs/emoji_pixels.py", "--workdir", tmp_path / "base")
    base += (*SHRUNK["emoji_pixels"], *sources("emoji_pixels", tmp_path))
    steps = ("--batch-size", 8, "--steps", 1, "--sample-every", 0)
    code, _, err = run(monkeypatch, capsys, "train", *base, *steps)
    assert code == 0, err


def test_every_config_is_here_and_short():
    files = {path.stem: path for path in (ROOT / "configs").glob("*.py")}
    assert set(files) == set(SHRUNK) | NOT_TRAINED
    for name, path in files.items():
        assert len(path.read_text().splitlines()) <= LINES.get(name, 45), path


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in SHRUNK if name != "digits_progressive"])
def test_trains_stops_resumes_and_samples(name, monkeypatch, capsys, tmp_path):
    if name.startswith(("fashion", "cifar10")):
        size, channels = (28, 1) if name.startswith("fashion") else (32, 3)
        shape = (16, size, size, channels)
        x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        np.savez(tmp_path / "x.npz", x=x, label=np.arange(16) % 10)
        from diffjax import data

        monkeypatch.setattr(data, "tfds", lambda *a, **k: data.array(tmp_path / "x.npz"))
    if name in ("edges_controlnet", "lora") or name in STUDENTS:
        teacher = ("configs/fashion_mnist.py", *FASHION) if name in FASHION_STUDENTS else UNET
        base = (*teacher, "--workdir", tmp_path / "base", "--batch-size", 8, "--steps", 1)
        monkeypatch.chdir(ROOT)
        code, _, err = run(monkeypatch, capsys, "train", *base, "--sample-every", 0)
        assert code == 0, err
    if name.startswith("emoji") or name == "dreambooth":
        with_few_emoji(monkeypatch, tmp_path)
        monkeypatch.chdir(ROOT)
    if name == "emoji_latent":
        with_latents(monkeypatch, capsys, tmp_path)
    if name in ("emoji_cascade", "dreambooth"):
        with_first_stage(monkeypatch, capsys, tmp_path)
    flags = (*SHRUNK[name], *sources(name, tmp_path), "--batch-size", 8)
    path, work = Path("configs") / f"{name}.py", tmp_path / "w"
    monkeypatch.chdir(ROOT)
    common = ("train", path, "--workdir", work, *flags, "--log-every", 1, "--sample-every", 0)
    usual = config.load(path)
    monkeypatch.setattr(config, "load", lambda p: shortened(usual) if p == str(path) else usual)
    for steps, words in ((2, "trained 2 steps"), (3, "resuming")):
        code, out, err = run(monkeypatch, capsys, *common, "--steps", steps)
        assert code == 0, err
        assert words in out
    out = tmp_path / "a.npz"
    flags = ("--num", 3, "--steps", 2, "--out", out)
    if name == "emoji_autoencoder":
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
        flags = (*flags, "--image", tmp_path / "a.png")
    if name in PROMPTED:
        flags = (*flags, "--prompt", "a cat")
    if name == "emoji_cascade":
        flags = (*flags, "--base-steps", 2)
        code, _, err = run(monkeypatch, capsys, "sample", work, *flags, "--prompt", " ")
        assert code == 2
        assert "--prompt is empty" in err
    if name == "edges_controlnet":
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "edges.png")
        code, _, err = run(monkeypatch, capsys, "sample", work, *flags)
        assert code == 2
        assert "give --edges FILE" in err
        flags = (*flags, "--edges", tmp_path / "edges.png")
    code, _, err = run(monkeypatch, capsys, "sample", work, *flags)
    assert code == 0, err
    assert np.isfinite(np.load(out)["samples"].astype(float)).all()


def shortened(get_config):
    """The same config with a preview of few steps."""
    import functools

    @functools.wraps(get_config)
    def get(**options):
        e = get_config(**options)
        model = e.model._replace(sampling=e.model.sampling._replace(steps=2))
        return e._replace(model=model)

    get.modules = get_config.modules
    return get


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["ict", "shortcut", "imm"])
def test_a_student_of_data_alone_can_be_guided(name, monkeypatch, capsys, tmp_path):
    """By an input of the network where it has two times, and by the null label where it has one."""
    monkeypatch.chdir(ROOT)
    work = tmp_path / "w"
    train = f"configs/digits_{name}.py", *UNET, "--batch-size", 8, "--steps", 1, "--workdir", work
    code, _, err = run(monkeypatch, capsys, "train", *train, "--sample-every", 0)
    assert code == 0, err
    drawn = []
    for scale in (1.0, 3.0):
        flags = "--num", 3, "--guidance-scale", scale, "--out", tmp_path / "a.npz"
        code, _, err = run(monkeypatch, capsys, "sample", work, *flags)
        assert code == 0, err
        drawn.append(np.load(tmp_path / "a.npz")["samples"].astype(float))
    assert drawn[0].shape == (3, 8, 8, 1)
