"""train.py as a user meets it: what it writes, what it refuses, and that it survives."""

import json
import signal
import time

import chex
import jax
import numpy as np
import pytest
from scripts import ROOT, TINY, run, saved, start

CONFIG_WITHOUT = "x = 1\n"
CONFIG_BROKEN = "import nothing_of_this_name\n"
CONFIG_WRONG = "def get_config(steps: int = 3):\n    return steps\n"
CONFIG_DATA = """
import sys
sys.path.insert(0, {root!r})
from configs.digits import get_config as digits
from diffjax.data import array

def get_config(steps: int = 3):
    experiment = digits(steps=steps, channels=8, multipliers=(1,))
    return experiment._replace(source=lambda: array({path!r}))
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.py"], "not a Python file that exists"),
        (["README.md"], "not a Python file that exists"),
        (["--stepz", "3"], "--steps"),
        (["--steps", "many"], "could not convert|invalid"),
        (["--dtype", "float8"], "float8"),
        (["--steps", "0"], "at least 1"),
        (["--accumulate", "7"], "divide the batch size"),
        (["--log-every", "0"], "--log-every must be at least 1"),
        (["--channels", "0"], "a U-Net needs a positive channels; got 0"),
        (["--multipliers", "1", "0"], "a U-Net needs a positive multipliers; got 0"),
        (["--workdir", "/proc/none"], "cannot write"),
        ([CONFIG_WITHOUT], "no function get_config"),
        ([CONFIG_BROKEN], "nothing_of_this_name"),
        ([CONFIG_WRONG], "must return an Experiment; got int"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments, says, monkeypatch, capsys, tmp_path):
    if "\n" in arguments[0]:
        (tmp_path / "config.py").write_text(arguments[0])
        arguments = [tmp_path / "config.py"]
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, "train", *arguments)
    assert code == 2
    assert any(part in err for part in says.split("|")), err
    assert "Traceback" not in err
    assert not (tmp_path / "runs" / "digits" / "checkpoints").exists()


@pytest.mark.parametrize("kind", ["missing", "garbage", "empty", "wrong type", "no x"])
def test_bad_data_is_one_sentence_and_exit_2(kind, monkeypatch, capsys, tmp_path):
    data = tmp_path / "data.npz"
    if kind == "garbage":
        data.write_bytes(b"not an archive")
    if kind == "empty":
        np.savez(data, x=np.zeros((0, 8, 8, 1), np.uint8))
    if kind == "wrong type":
        np.savez(data, x=np.zeros((4, 8, 8, 1)))
    if kind == "no x":
        np.savez(data, y=np.zeros(3))
    (tmp_path / "config.py").write_text(CONFIG_DATA.format(root=str(ROOT), path=str(data)))
    code, _, err = run(
        monkeypatch, capsys, "train", tmp_path / "config.py", "--workdir", tmp_path / "w"
    )
    assert code == 2
    assert "data.npz: expected an .npz file" in err


def test_help_names_every_keyword_with_its_text(monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "train", "--help")
    assert code == 0, err
    for text in ("--label-dropout", "peak learning rate", "--checkpoint-every", "--workdir"):
        assert text in out


LONG = (*TINY, "--steps", "200", "--log-every", "5", "--checkpoint-every", "20")


def _final(workdir):
    return saved(workdir, 200)


def _logged(workdir):
    path = workdir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _wait_for(workdir, lines, process):
    deadline = time.time() + 240
    while _logged(workdir) < lines and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(tmp_path):
    undisturbed = start("train", "--workdir", tmp_path / "a", *LONG)
    _, err = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, err
    arguments = ("train", "--workdir", tmp_path / "b", *LONG)
    for number, lines in ((signal.SIGKILL, 9), (signal.SIGTERM, 22)):
        process = start(*arguments)
        _wait_for(tmp_path / "b", lines, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 0, err
            assert "and saved; the same command resumes it" in out
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "resuming" in out
    chex.assert_trees_all_equal(_final(tmp_path / "a"), _final(tmp_path / "b"))
    both = [(tmp_path / run / "metrics.jsonl").read_text() for run in "ab"]
    assert both[0] == both[1]


CONFIG_NAN = """
import sys
sys.path.insert(0, {root!r})
import jax.numpy as jnp
from configs.digits import get_config as digits

def get_config(steps: int = 40, bad_after: int = 5):
    experiment = digits(steps=steps, channels=8, multipliers=(1,), batch_size=8)
    def loss(params, key, batch, calls):
        value, aux = experiment.loss({{}})(params, key, batch)
        value = jnp.where(calls >= bad_after, jnp.nan, value)
        return value, {{"context": {{"calls": calls + 1}}}}
    return experiment._replace(loss=lambda frozen: loss, context={{"calls": jnp.zeros((), int)}})
"""


@pytest.mark.exhaustive
def test_divergence_stops_and_names_the_last_good_checkpoint(monkeypatch, capsys, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG_NAN.format(root=str(ROOT)))
    with jax.debug_nans(False):
        code, _, err = run(
            monkeypatch, capsys, "train", tmp_path / "config.py", "--workdir", tmp_path / "w",
            "--checkpoint-every", "4", "--log-every", "1", "--sample-every", "0",
        )  # fmt: skip
    assert code == 1
    assert "not finite for 10 steps in a row" in err
    lines = [json.loads(line) for line in (tmp_path / "w/metrics.jsonl").read_text().splitlines()]
    assert lines[4]["skipped"] == 0
    assert lines[-1]["skipped"] >= 10
    last = max(int(p.name) for p in (tmp_path / "w/checkpoints").iterdir() if p.name.isdigit())
    assert f"checkpoints/{last}" in err
    restored = saved(tmp_path / "w", last)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restored["params"]))
