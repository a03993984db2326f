"""sample.py: what it refuses before it draws, what it never writes, and how it ends."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from nets import reference, write_folder
from PIL import Image
from scripts import ROOT, run, start

from diffjax import conditioning, recipe, schedules
from diffjax.errors import InputError
from diffjax.experiment import Sampling
from diffjax.media.image import SHEET, npz_arrays, png_sheet, to_uint8
from diffjax.models import ResidualMLP
from diffjax.parameterization import predict_v
from diffjax.run.preview import preview
from diffjax.run.weights import check_finite


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "noext"], "must end in one of .png, .npz, .gif"),
        (["--out", "a.tiff"], "must end in one of"),
        (["--out", "."], "must end in one of"),
        (["--out", "folder.png"], "is a folder"),
        (["--out", "/proc/none.png"], "cannot be written"),
        (["--seed", "-1"], "from 0 to 4294967295"),
        (["--sampler", "adaptive_ode", "--steps", "5"], "leave out --steps and --grid"),
        (["--sampler", "adaptive_sde", "--grid=karras"], "leave out --steps and --grid"),
    ],
)
def test_refused_before_anything_is_drawn(arguments, says, trained, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    code, out, err = run(monkeypatch, capsys, "sample", trained[0], *arguments)
    assert code == 2
    assert says in err
    assert "once compiled" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_several_files_of_one_draw(trained, monkeypatch, capsys, tmp_path):
    png, npz = tmp_path / "a.png", tmp_path / "b.npz"
    flags = ("--num", 5, "--batch-size", 2, "--steps", 1, "--out", png, "--out", npz)
    code, said, err = run(monkeypatch, capsys, "sample", trained[0], *flags)
    assert code == 0, err
    assert np.load(npz)["samples"].shape == (5, 8, 8, 1)
    assert np.load(npz)["labels"].tolist() == [0, 1, 2, 3, 4]
    assert Image.open(png).size[0] > 48
    assert str(png) in said
    assert str(npz) in said


def test_guidance_of_a_model_without_a_guide_is_refused(monkeypatch, capsys, tmp_path):
    config, tensors, _ = reference("diffusers_unet2d")
    folder = write_folder(tmp_path / "net", config, tensors)
    flags = ("--guidance-scale", 2, "--num", 1, "--steps", 1, "--out", tmp_path / "a.png")
    code, _, err = run(monkeypatch, capsys, "sample", "--pretrained", folder, *flags)
    assert code == 2
    assert "no guidance; leave --guidance-scale at 1" in err


def test_weights_that_are_not_finite_are_refused_by_name():
    check_finite({"a": np.ones(3, np.float32)}, "it")
    with jax.debug_nans(False), pytest.raises(InputError, match=r"checkpoint 3 .*\['b'\]"):
        check_finite({"a": np.ones(3), "b": np.array([1.0, np.nan])}, "checkpoint 3")


def test_an_npz_is_written_as_samples_come(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, (7, 4, 4, 3)).astype(np.float32)
    sink = npz_arrays(to_uint8).open(tmp_path / "a.npz", 7, {"label": np.arange(7)})
    for part in (x[:3], x[3:6], x[6:]):
        sink.add(part)
    sink.close()
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["samples"], to_uint8(x))
        np.testing.assert_array_equal(file["labels"], np.arange(7))


def test_a_sheet_shows_the_first_of_very_many(tmp_path):
    sink = png_sheet().open(tmp_path / "a.png", SHEET + 10, {})
    for _ in range(6):
        sink.add(np.zeros((SHEET // 5, 2, 2, 1), np.float32))
    assert f"the first {SHEET} of {SHEET + 10}" in sink.close()


def test_a_preview_is_bounded_and_goes_through_the_codec(tmp_path):
    """1,000 classes, and a codec that halves: 100 samples, none of the sheet above a half."""
    schedule, seen = schedules.vp_cosine(), []
    label = (conditioning.label(1000),)

    def sheet(samples, raw):
        seen.append((samples, raw))
        return np.zeros((2, 2, 1), np.uint8)

    module = ResidualMLP(width=8, depth=1, num_classes=1000)
    model = recipe.gaussian_model(module, schedule, predict_v, (4,), label)
    codec = model.codec._replace(decode=lambda frozen, x: 0 * x + 0.5, sheet=sheet)
    model = model._replace(codec=codec, sampling=Sampling(steps=2))
    params = model.init(jax.random.key(0))
    preview(model)(params, {}, jax.random.key(1), tmp_path / "a.png")
    ((samples, raw),) = seen
    assert samples.shape == (100, 4)
    assert np.all(samples == 0.5)
    assert raw["label"].shape == (100,)


@pytest.mark.parametrize("script", ["train", "sample"])
def test_a_platform_that_is_not_there_is_a_sentence(script, trained, tmp_path):
    arguments = ("--workdir", tmp_path / "w") if script == "train" else (trained[0],)
    process = subprocess.run(
        [sys.executable, ROOT / f"{script}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "banana"},
        cwd=tmp_path,
        timeout=120,
    )
    assert process.returncode == 2, process.stderr
    assert "JAX found no device" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.slow
@pytest.mark.exhaustive
def test_an_interrupt_within_a_callback_of_the_collector_is_not_lost(tmp_path):
    """Python prints and drops an exception that such a callback raises; JAX registers one."""
    program = """
import gc, os, signal, time
from diffjax.run import start

def main(argv):
    gc.callbacks.append(lambda phase, info: os.kill(os.getpid(), signal.SIGINT) or time.sleep(0.2))
    gc.collect()
    time.sleep(60)

start.run(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=50)
    assert done.returncode == 130
    assert b"interrupted" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("wait", [0.5, 1.5, 3, 5])
def test_an_interrupt_ends_with_130(wait, trained, tmp_path):
    """While it imports, restores, compiles or draws."""
    process = start(
        "sample", trained[0], "--num", 4000, "--steps", 900, "--out", tmp_path / "a.png",
        "--compilation-cache", "off",
    )  # fmt: skip
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode in (130, -signal.SIGINT), err  # the latter before Python's handler
    assert "Segmentation" not in err


def programs(cache):
    """The compiled draws there, and what they are found by without a trace."""
    return {path.name: path.read_bytes() for path in cache.glob("diffjax-*")}


@pytest.mark.exhaustive
def test_the_second_process_finds_what_the_first_compiled(trained, tmp_path):
    cache = tmp_path / "cache"
    flags = ("--num", 1, "--steps", 1, "--out", tmp_path / "a.png", "--compilation-cache", cache)
    for _ in range(2):
        process = start("sample", trained[0], *flags)
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        entries = programs(cache)
        assert entries
    process = start("sample", trained[0], *flags, "--seed", 5)
    process.communicate(timeout=200)
    assert programs(cache) == entries


def test_lists(trained, monkeypatch, capsys):
    for what, words in {
        "samplers": ("ddim", "--eta 0.0", "2n - 1"),
        "grids": ("karras", "--rho 7.0"),
        "conditions": ("--label", "has a null value"),
        "configs": ("configs/digits.py", "configs/images.py"),
    }.items():
        code, out, _ = run(monkeypatch, capsys, "sample", trained[0], "--list", what)
        assert code == 0
        assert all(word in out for word in words), what


def test_help_says_that_a_workdir_is_code(monkeypatch, capsys):
    for script in ("train", "sample"):
        _, out, _ = run(monkeypatch, capsys, script, "--help")
        assert "only" in out
        assert "trust" in out
