"""What a workdir keeps of its configuration, and how a run is made longer or begun from weights."""

import enum
import json
from pathlib import Path

import chex
import numpy as np
import pytest
from scripts import TINY, run, saved

from diffjax.errors import InputError
from diffjax.run import config, workdir
from diffjax.run.flags import check_seed
from diffjax.run.options import from_json, to_json


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ((1, 2), tuple[int, ...]),
        ([1, 2], list[int]),
        ({"a": 1.5}, dict[str, float]),
        ({1: (2, 3)}, dict[int, tuple[int, int]]),
        (Path("a/b"), Path),
        (Path("a/b"), Path | None),
        (None, Path | None),
        (Colour.BLUE, Colour),
        (frozenset({"a", "b"}), frozenset[str]),
        (((1, 2), (3,)), tuple[tuple[int, ...], ...]),
        ((Colour.RED, Path("x")), tuple[Colour, Path]),
        (3, int | tuple[int, ...]),
        ((3, 4), int | tuple[int, ...]),
        (1.0, float),
        (float("inf"), float),
        ("text", str | None),
        (True, bool),
    ],
)
def test_keywords_come_back_as_they_were(value, kind):
    found = from_json(json.loads(json.dumps(to_json(value))), kind)
    assert found == value
    assert type(found) is type(value)


def test_a_keyword_that_json_cannot_hold_is_refused():
    with pytest.raises(InputError, match="must be a number, a string"):
        to_json(object())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"options": 3}'])
def test_a_damaged_record_is_a_sentence(text, tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text(text)
    for script in (("train", "--workdir", tmp_path), ("sample", tmp_path)):
        code, _, err = run(monkeypatch, capsys, *script)
        assert code == 2, err
        assert "config.json is damaged" in err
        assert "Traceback" not in err


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40])
def test_one_rule_for_seeds(seed, monkeypatch, capsys, tmp_path):
    with pytest.raises(InputError, match="from 0 to 4294967295"):
        check_seed(seed)
    code, _, err = run(monkeypatch, capsys, "train", "--seed", seed, "--workdir", tmp_path / "w")
    assert code == 2
    assert "from 0 to 4294967295" in err


def test_every_allowed_seed_gives_another_key(trained, monkeypatch, capsys, tmp_path):
    def draw(seed):
        npz = tmp_path / f"{seed}.npz"
        flags = ("--num", 2, "--steps", 1, "--seed", seed, "--out", npz)
        code, _, err = run(monkeypatch, capsys, "sample", trained[0], *flags)
        assert code == 0, err
        return np.load(npz)["samples"]

    drawn = [draw(seed) for seed in (0, 3_000_000_000, 2**32 - 1)]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_modules_beside_a_config_go_with_it(tmp_path):
    for name, number in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "numbers_of_mine.py").write_text(f"N = {number}\n")
        (tmp_path / name / "config.py").write_text(
            "from numbers_of_mine import N\ndef get_config(): return N\n"
        )
    found = [config.load(tmp_path / name / "config.py") for name in "ab"]
    assert [get_config() for get_config in found] == [1, 2]
    target = tmp_path / "w"
    target.mkdir()
    workdir.save_config(target, tmp_path / "b" / "config.py", found[1], {})
    (tmp_path / "b" / "numbers_of_mine.py").write_text("N = 3\n")
    assert config.load(target / "config.py")() == 2
    with pytest.raises(InputError, match="the code of"):
        workdir.check_config(
            target, tmp_path / "b" / "config.py", config.load(tmp_path / "b" / "config.py"), {}
        )


@pytest.mark.exhaustive
def test_a_finished_run_is_made_longer_and_other_changes_are_insisted_on(
    monkeypatch, capsys, tmp_path
):
    start = ("train", "--workdir", tmp_path / "w", *TINY)
    assert run(monkeypatch, capsys, *start, "--steps", 4)[0] == 0
    code, out, err = run(monkeypatch, capsys, *start, "--steps", 8)
    assert code == 0, err
    assert "steps was 4, now 8" in out
    assert "the learning rate follows the schedule of 8 steps" in out
    assert "resuming" in out
    code, _, err = run(monkeypatch, capsys, *start, "--steps", 6)
    assert code == 2
    assert "steps was 8, now 6" in err
    code, _, err = run(monkeypatch, capsys, *start, "--steps", 9, "--lr", 0.1)
    assert code == 2
    assert "--allow-changes lr" in err
    more = ("--steps", 9, "--lr", 0.1, "--allow-changes", "lr")
    code, out, err = run(monkeypatch, capsys, *start, *more)
    assert code == 0, err
    assert "lr was 0.002, now 0.1" in out


@pytest.mark.exhaustive
def test_a_run_begins_from_the_weights_of_another(trained, monkeypatch, capsys, tmp_path):
    flags = (*TINY, "--steps", 1, "--lr", 0, "--init-from", trained[0])
    code, out, err = run(monkeypatch, capsys, "train", "--workdir", tmp_path / "w", *flags)
    assert code == 0, err
    assert "starting from the weights of" in out

    wanted = saved(trained[0], 6)["averages"]["ema"]
    chex.assert_trees_all_equal(saved(tmp_path / "w", 1)["params"], wanted)
    other = ("--workdir", tmp_path / "x", *flags[:1], 16, *flags[2:])
    code, _, err = run(monkeypatch, capsys, "train", *other)
    assert code == 2
    assert "weights of another network" in err
