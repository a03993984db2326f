"""What a finished run leaves, and what sample.py makes of it."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from scripts import TINY, run

from diffjax.run.workdir import lock_workdir


def test_training_writes_what_the_readme_promises(trained):
    workdir, out = trained
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 6]
    assert all(np.isfinite(line["loss"]) and line["skipped"] == 0 for line in lines)
    assert (workdir / "checkpoints" / "6").is_dir()
    events = (workdir / "tensorboard").glob("events*")
    assert any(b"data_wait" in file.read_bytes() for file in events)
    assert re.search(r"waited for data \d+\.\d% of the time", out)
    width, height = Image.open(workdir / "samples.png").size
    assert width == height > 10 * 48  # ten columns, a row per class
    assert out.strip().endswith(f"python sample.py {workdir} --num 100 --out samples.png")


@pytest.mark.exhaustive
def test_a_finished_run_is_not_trained_again(trained, monkeypatch, capsys):
    workdir, _ = trained
    before = (workdir / "metrics.jsonl").read_text()
    arguments = ("--workdir", workdir, *TINY, "--steps", "6")
    code, out, err = run(monkeypatch, capsys, "train", *arguments)
    assert code == 0, err
    assert "resuming" in out
    assert (workdir / "metrics.jsonl").read_text() == before


def test_a_changed_config_is_refused_and_named(trained, monkeypatch, capsys):
    workdir, _ = trained
    again = ("--workdir", workdir, *TINY, "--steps", "6", "--lr", "0.5")
    code, _, err = run(monkeypatch, capsys, "train", *again)
    assert code == 2
    assert "lr was 0.002, now 0.5" in err


def test_a_second_run_in_the_same_workdir_is_refused(trained, monkeypatch, capsys):
    workdir, _ = trained
    with lock_workdir(workdir):
        code, _, err = run(
            monkeypatch, capsys, "train", "--workdir", workdir, *TINY, "--steps", "6"
        )
    assert code == 2
    assert "another run is writing" in err


FOUR = ("--steps", "4")


def draw(monkeypatch, capsys, workdir, tmp_path, *arguments, steps=FOUR):
    npz = tmp_path / "samples.npz"
    arguments = (workdir, "--out", tmp_path / "s.png", "--npz", npz, *steps, *arguments)
    code, out, err = run(monkeypatch, capsys, "sample", *arguments)
    assert code == 0, err
    with np.load(npz) as file:
        return file["samples"], file["labels"], out


def test_writes_png_npz_and_gif(trained, monkeypatch, capsys, tmp_path):
    gif = tmp_path / "s.gif"
    samples, labels, out = draw(
        monkeypatch, capsys, trained[0], tmp_path, "--num", "20", "--gif", gif
    )
    assert samples.shape == (20, 8, 8, 1)
    assert samples.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.arange(20) % 10)
    first = out.splitlines()[0]
    assert all(word in first for word in ("cpu", "ddim", "4 steps", "images/s once compiled"))
    assert Image.open(gif).n_frames == 5
    width, height = Image.open(tmp_path / "s.png").size
    assert height > 4 * width  # one row per class, two samples each


@pytest.mark.exhaustive
def test_seed_label_and_batch_size(trained, monkeypatch, capsys, tmp_path):
    args = (monkeypatch, capsys, trained[0], tmp_path, "--num", "7", "--label", "3")
    one, labels, _ = draw(*args, "--seed", "5")
    again, _, _ = draw(*args, "--seed", "5", "--batch-size", "3")
    other, _, _ = draw(*args, "--seed", "6")
    assert set(labels) == {3}
    assert np.abs(one.astype(int) - again.astype(int)).max() <= 1
    assert np.abs(one.astype(int) - other.astype(int)).max() > 1


@pytest.mark.parametrize(
    "flags",
    [
        ("--sampler", "ancestral", "--variance", "large"),
        ("--sampler", "heun", "--grid", "karras"),
        *(
            pytest.param(flags, marks=pytest.mark.exhaustive)
            for flags in (
                ("--sampler", "ddim", "--eta", "0.5"),
                ("--sampler", "dpmpp_2m", "--grid", "uniform_logsnr", "--guidance-scale", "1"),
            )
        ),
    ],
)
def test_every_kind_of_sampler(flags, trained, monkeypatch, capsys, tmp_path):
    samples, _, out = draw(monkeypatch, capsys, trained[0], tmp_path, "--num", "10", *flags)
    assert flags[1] in out.splitlines()[0]
    assert len(np.unique(samples)) > 10


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(
            ("--sampler", "adaptive_ode", "--relative", "0.1", "--absolute", "0.1"),
            marks=pytest.mark.exhaustive,
        ),
        ("--sampler", "adaptive_sde", "--relative", "0.5", "--absolute", "0.5"),
    ],
)
def test_samplers_that_choose_their_own_steps(flags, trained, monkeypatch, capsys, tmp_path):
    few = ("--num", "3")
    samples, _, out = draw(monkeypatch, capsys, trained[0], tmp_path, *few, *flags, steps=())
    assert samples.shape == (3, 8, 8, 1)
    assert re.search(rf"{flags[1]}, \d+ denoiser calls, ", out.splitlines()[0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sampler", "dimm"], "Did you mean ddim?"),
        (["--sampler", "adaptive_sde", "--gif", "a.gif"], "adaptive_sde has no grid for --gif"),
        (["--grid", "karas"], "Did you mean karras?"),
        (["--label", "10"], "from 0 to 9; got 10"),
        (["--num", "0"], "--num must be at least 1"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--steps", "2000"], "at most T = 1000"),
        (["--eta", "-1"], "eta must be at least 0"),
        (["--out", "/nowhere/s.png"], "does not exist"),
        (["--step", "5"], "no checkpoint 5"),
        (["--etaa", "1"], "--eta"),
        (["--sampler", "ancestral", "--variance", "huge"], "must be one of small, large"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments, says, trained, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "sample", trained[0], *arguments)
    assert code == 2
    assert says in err


def test_a_folder_that_is_no_workdir(monkeypatch, capsys, tmp_path):
    code, _, err = run(monkeypatch, capsys, "sample", tmp_path)
    assert code == 2
    assert "not a workdir of train.py" in err
    code, _, err = run(monkeypatch, capsys, "sample")
    assert code == 2
    assert "give the workdir" in err


def test_the_list_of_samplers_names_every_one_that_flags_can_reach(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "sample", "--list-samplers")
    assert code == 0
    for text in ("name", "order", "calls", "paper", "ddim", "Eq. 12", "--eta 0.0", "unipc"):
        assert text in out
