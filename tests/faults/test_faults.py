"""What can go wrong with a long run, done to a real one."""

import json
import os
import re
import resource
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
import pytest
import storm
from scripts import start

from diffjax.run.workdir import lock_workdir

SHORT = ("--checkpoint-every", 10, "--log-every", 10, "--sample-every", 0)


def train(workdir, *arguments, **options):
    return start("train", storm.CONFIG, "--workdir", workdir, *SHORT, *arguments, **options)


def finish(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


@pytest.mark.exhaustive
@pytest.mark.slow
def test_killed_at_random_moments_loses_nothing(tmp_path):
    kills, same = storm.storm(tmp_path, kills=3)
    assert len(kills) == 3
    assert same


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_cascade_killed_in_its_second_stage_ends_the_same(tmp_path):
    config = str(Path(storm.CONFIG).with_name("small_cascade.py"))
    finish(start("train", config, "--workdir", tmp_path / "base", *SHORT))
    second = (config, "--base", tmp_path / "base")
    kills, same = storm.storm(tmp_path, kills=2, config=second)
    assert len(kills) == 2
    assert same


def at_most(size):
    """A limit on the size of any file that the process writes: a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.exhaustive
def test_a_disk_that_fills_up_ends_the_run_and_loses_nothing_before(tmp_path):
    finish(train(tmp_path / "a", "--steps", 20))
    process = train(tmp_path / "b", "--steps", 20, preexec_fn=at_most(40_000))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    last = err.strip().splitlines()[-1]  # after Orbax's own account of it
    assert last.startswith("train.py: stopped: a checkpoint could not be written")
    assert "make room" in last
    assert "loop is closed" not in err  # the other writes have ended
    assert "never retrieved" not in err
    finish(train(tmp_path / "b", "--steps", 20))
    assert losses(tmp_path / "b") == losses(tmp_path / "a")


@pytest.mark.slow
def test_sigterm_saves_within_ten_seconds(tmp_path):
    process = train(tmp_path, "--steps", 100_000)
    while storm.logged(tmp_path) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    out, _ = finish(process)
    assert time.monotonic() - began < 10
    step = int(re.search(r"stopped at step ([\d,]+)", out)[1].replace(",", ""))
    assert (tmp_path / "checkpoints" / str(step)).is_dir()


@pytest.mark.exhaustive
def test_saved_on_eight_devices_resumes_on_two_and_one(tmp_path):
    finish(train(tmp_path / "8", "--steps", 20, "--mesh", "fsdp=8", devices=8))
    for devices in (8, 2, 1):
        workdir = tmp_path / f"on_{devices}"
        finish(train(workdir, "--steps", 10, "--mesh", "fsdp=8", devices=8))
        record = workdir / "config.json"
        record.write_text(record.read_text().replace('"steps": 10', '"steps": 20'))
        out, _ = finish(train(workdir, "--steps", 20, "--mesh", "fsdp=-1", devices=devices))
        assert "at step 10" in out
        assert losses(workdir)[20] == pytest.approx(losses(tmp_path / "8")[20], abs=1e-6)


def pair(script, *arguments, timeout=60):
    """Two processes of four devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = ("--distributed", "--coordinator", address, "--num-processes", 2, "--timeout", timeout)
    return [start(script, *arguments, *flags, "--process-id", i, devices=4) for i in (0, 1)]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_two_processes_train_and_sample_as_one(tmp_path):
    arguments = (storm.CONFIG, *SHORT, "--steps", 20, "--mesh", "data=2,fsdp=4", "--workdir")
    finish(start("train", *arguments, tmp_path / "one", devices=8))
    for process in pair("train", *arguments, tmp_path / "two"):
        finish(process)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys() == {10, 20}
    np.testing.assert_allclose([*one.values()], [*two.values()], rtol=0, atol=1e-6)
    out = [tmp_path / f"{name}.npz" for name in ("one", "two")]
    draw = (tmp_path / "two", "--num", 20, "--steps", 3, "--out", tmp_path / "s.png", "--npz")
    finish(start("sample", *draw, out[0], devices=8))
    said = [finish(process)[0] for process in pair("sample", *draw, out[1])]
    assert "20 samples" in said[0]
    assert "20 samples" not in said[1]  # the others are silent
    np.testing.assert_array_equal(*(np.load(path)["samples"] for path in out))


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("owner", [0, 1])
def test_two_processes_agree_which_checkpoint_is_damaged(owner, tmp_path):
    """A truncated file that holds the shards of one of them: both go back to the step before."""
    arguments = (storm.CONFIG, *SHORT, "--steps", 20, "--mesh", "fsdp=8", "--workdir", tmp_path)
    for process in pair("train", *arguments):
        finish(process)
    files = (tmp_path / "checkpoints" / "20" / "state").glob(f"ocdbt.process_{owner}/d/*")
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    before = losses(tmp_path)
    said = [finish(process) for process in pair("train", *arguments)]
    assert "checkpoint 20 is damaged" in said[0][1]
    assert "at step 10" in said[0][0]
    assert losses(tmp_path) == before


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "victim"),
    [
        (signal.SIGKILL, 1),
        pytest.param(signal.SIGKILL, 0, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGSTOP, 1, marks=pytest.mark.exhaustive),
    ],
)
def test_a_dead_or_hung_process_ends_the_others(number, victim, tmp_path):
    arguments = (storm.CONFIG, *SHORT, "--steps", 1_000_000, "--workdir", tmp_path)
    processes = pair("train", *arguments, timeout=10)
    while storm.logged(tmp_path) < 3 and processes[0].poll() is None:
        time.sleep(0.05)
    processes[victim].send_signal(number)
    began = time.monotonic()
    _, err = processes[1 - victim].communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert processes[1 - victim].returncode != 0
    assert "another process died or did not answer for 10 s" in err
    processes[victim].kill()
    processes[victim].communicate()


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("refusal", ["another width", "a lock", "no record", "a file"])
def test_the_others_end_at_once_where_the_main_process_refuses_a_workdir(refusal, tmp_path):
    """Long before the 300 s after which a silent process counts as dead."""
    workdir, arguments = tmp_path / "w", ("--steps", 4)
    finish(train(workdir, *arguments))
    with ExitStack() as stack:
        if refusal == "another width":
            arguments += ("--width", 8)
        elif refusal == "a lock":
            stack.enter_context(lock_workdir(workdir))
        elif refusal == "no record":
            (workdir / "config.json").write_text("")
        else:
            workdir = workdir / "config.py"
        began = time.monotonic()
        processes = pair("train", storm.CONFIG, "--workdir", workdir, *arguments, timeout=300)
        said = [finish(process, 2)[1] for process in processes]
        assert time.monotonic() - began < 150
    assert "the main process could not take the workdir" in said[1]
    assert said[0].splitlines()[-1].startswith("train.py: error: ")
    assert "main process" not in said[0]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_others_end_at_once_where_the_main_process_cannot_write_its_samples(tmp_path):
    finish(train(tmp_path, "--steps", 4))
    (tmp_path / "a.png").mkdir()
    began = time.monotonic()
    processes = pair("sample", tmp_path, "--num", 2, "--out", tmp_path / "a.png", timeout=300)
    said = [finish(process, 2)[1] for process in processes]
    assert time.monotonic() - began < 150
    assert "is a folder" in said[0]


@pytest.mark.exhaustive
def test_sigterm_to_one_process_saves_and_ends_all(tmp_path):
    arguments = (storm.CONFIG, *SHORT, "--steps", 1_000_000, "--workdir", tmp_path)
    processes = pair("train", *arguments)
    while storm.logged(tmp_path) < 3 and processes[0].poll() is None:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    said = [finish(process)[0] for process in processes]
    assert "and saved" in said[0]


def test_a_read_only_workdir_is_refused(tmp_path, monkeypatch, capsys):
    from scripts import run

    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may write anywhere
    code, _, err = run(monkeypatch, capsys, "train", storm.CONFIG, "--workdir", tmp_path)
    assert code == 2
    assert "cannot write to the workdir" in err
    assert os.listdir(tmp_path) == []


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "lora_ga"])
def test_a_lora_killed_in_training_ends_as_one_left_alone(method, tmp_path):
    """SIGKILL between checkpoints: the state and the log are the same bit for bit."""
    finish(train(tmp_path / "base", "--steps", 20, "--width", 64))
    flags = ("--base", tmp_path / "base", "--data", "same", "--method", method, "--layers", "dense")
    flags = (*flags, "--batch-size", 16, "--log-every", 5, *SHORT[:2], *SHORT[4:])
    command = ("train", "configs/lora.py", *flags, "--steps", 400, "--workdir")
    finish(start(*command, tmp_path / "alone"))
    process = start(*command, tmp_path / "killed")
    while storm.logged(tmp_path / "killed") < 8 and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    out, _ = finish(start(*command, tmp_path / "killed"))
    assert "resuming" in out
    one, other = (jax.tree.leaves(storm.final(tmp_path / n, 400)) for n in ("alone", "killed"))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert losses(tmp_path / "alone") == losses(tmp_path / "killed")
