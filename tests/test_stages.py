"""A cascade through the two scripts: a base, a second stage on it, and what is refused."""

import shutil

import numpy as np
import pytest
from PIL import Image
from scripts import ROOT, run

from diffjax.run.flags import parse

CONFIG = ROOT / "tests" / "faults" / "small_cascade.py"
QUIET = ("--sample-every", 0, "--log-every", 1, "--steps", 2)


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """A base of 4x4 digits, and a second stage of 8x8."""
    folder = tmp_path_factory.mktemp("cascade")
    with pytest.MonkeyPatch.context() as patch:
        for name, more in (("base", ()), ("second", ("--base", folder / "base"))):
            patch.setattr("sys.argv", ["train.py"])
            train(patch, CONFIG, "--workdir", folder / name, *QUIET, *more)
    return folder


def train(patch, *arguments):
    import sys

    from diffjax.run import start

    patch.syspath_prepend(str(ROOT))
    patch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    import train as script

    start.run(script.main)


@pytest.fixture
def sample(monkeypatch, capsys, workdirs):
    return lambda *flags: run(monkeypatch, capsys, "sample", workdirs / "second", *flags)


def drawn(sample, path, *flags):
    code, out, err = sample("--out", path, *flags)
    assert code == 0, err
    return np.load(path) if path.suffix == ".npz" else out


@pytest.mark.exhaustive
def test_one_command_draws_both_stages_the_small_pictures_first(sample, tmp_path):
    code, out, err = sample("--num", 6, "--out", tmp_path / "a.png", "--out", tmp_path / "a.npz")
    assert code == 0, err
    assert "the small pictures in" in out
    small, large = (Image.open(tmp_path / f"a{end}.png") for end in ("_small", ""))
    assert np.asarray(small).std() > 0 < np.asarray(large).std()
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["samples"].shape == (6, 8, 8, 1)
    assert arrays["small_drawn"].shape == arrays["small"].shape == (6, 4, 4, 1)
    np.testing.assert_allclose(arrays["small_level"], 0.1)
    # Sample i is the same, however many are drawn and in whatever batches.
    again = drawn(sample, tmp_path / "b.npz", "--num", 4, "--batch-size", 3)
    for name in arrays:
        np.testing.assert_array_equal(arrays[name][:4], again[name])


@pytest.mark.exhaustive
def test_the_seed_and_the_level_reach_the_first_stage(sample, tmp_path):
    plain = drawn(sample, tmp_path / "a.npz", "--num", 2, "--augmentation", 0)
    np.testing.assert_array_equal(plain["small"], plain["small_drawn"])
    noisy = drawn(sample, tmp_path / "b.npz", "--num", 2, "--augmentation", 0.7)
    np.testing.assert_array_equal(noisy["small_drawn"], plain["small_drawn"])
    assert np.abs(noisy["small"] - plain["small"]).max() > 0.3
    seed = drawn(sample, tmp_path / "c.npz", "--num", 2, "--seed", 1, "--augmentation", 0)
    assert np.abs(seed["small_drawn"] - plain["small_drawn"]).max() > 0.3
    label = drawn(sample, tmp_path / "d.npz", "--num", 2, "--label", 7, "--augmentation", 0)
    assert label["labels"].tolist() == [7, 7]


@pytest.mark.exhaustive
def test_a_given_picture_is_enlarged(sample, tmp_path):
    picture = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    Image.fromarray(picture).save(tmp_path / "four.png")
    flags = ("--num", 3, "--small", tmp_path / "four.png", "--augmentation", 0)
    arrays = drawn(sample, tmp_path / "a.npz", *flags)
    want = np.broadcast_to(picture[None, ..., None] / 127.5 - 1, (3, 4, 4, 1))
    np.testing.assert_allclose(arrays["small"], want, atol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--augmentation", 1), "--augmentation must be at least 0"),
        (("--augmentation", -0.2), "below 1"),
        (("--base-steps", 0), "--base-steps must be at least 1"),
        (("--small", "no.png"), "not a picture that can be read"),
    ],
)
def test_flags_refused(sample, tmp_path, flags, words):
    code, _, err = sample("--num", 1, "--out", tmp_path / "a.npz", *flags)
    assert code == 2
    assert words in err
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.exhaustive
def test_a_base_of_another_size_is_refused(monkeypatch, capsys, workdirs, tmp_path):
    more = ("--base", workdirs / "base", "--small", 5, "--workdir", tmp_path / "w")
    code, _, err = run(monkeypatch, capsys, "train", CONFIG, *QUIET, *more)
    assert code == 2
    assert "draws pictures (4, 4, 1), and this stage enlarges (5, 5, 1)" in err


@pytest.mark.exhaustive
def test_a_base_that_is_gone_is_told(monkeypatch, capsys, workdirs, tmp_path):
    shutil.copytree(workdirs / "second", tmp_path / "w")
    record = tmp_path / "w" / "config.json"
    record.write_text(record.read_text().replace(str(workdirs / "base"), str(tmp_path / "gone")))
    code, _, err = run(monkeypatch, capsys, "sample", tmp_path / "w", "--num", 1)
    assert code == 2
    assert "is not a workdir of train.py" in err


def test_flags_of_one_name_are_one_flag():
    def first(num: int = 1, seed: int = 0):
        """Flags."""

    def second(seed: int = 5, prompt: str = ""):
        """Flags."""

    found = parse("p", "d", [first, second], ["--seed", "3", "--prompt", "a"])
    assert found == [{"num": 1, "seed": 3}, {"seed": 3, "prompt": "a"}]
    assert parse("p", "d", [first, second], [])[1]["seed"] == 0  # the first one's default
