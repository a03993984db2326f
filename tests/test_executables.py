"""Compiled functions that outlive the process: when they are used again, and when not."""

import functools
import importlib
import pickle
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import run

from diffjax import parallel
from diffjax.run import executables

ONE = parallel.make_mesh(devices=jax.devices()[:1])
FLAGS = ("--num", 3, "--steps", 2, "--seed", 4)


@pytest.fixture
def kept(tmp_path):
    return executables.Kept(tmp_path, "machine", "model")


def squares(number):
    return jax.jit(lambda x: number * x**2)


def unused():
    raise AssertionError("it was traced again")


def test_a_compiled_function_is_found_without_a_trace(kept):
    x = np.arange(3, dtype=np.float32)
    first = executables.compiled(kept, ["f"], x, ONE, lambda: squares(2).lower(x))
    again = executables.compiled(kept, ["f"], x, ONE, unused)
    np.testing.assert_array_equal(first(x), again(x))
    np.testing.assert_array_equal(again(x), 2 * x**2)


@pytest.mark.parametrize("other", ["name", "model", "machine", "shape", "type", "sharding"])
def test_another_function_is_not_mistaken_for_it(other, kept):
    x, name, mesh = jnp.arange(8, dtype=jnp.float32), "f", ONE
    executables.compiled(kept, [name], x, ONE, lambda: squares(2).lower(x))
    if other == "name":
        name = "g"
    elif other == "shape":
        x = x[:4]
    elif other == "type":
        x = x.astype(jnp.int32)
    elif other == "sharding":
        mesh = parallel.make_mesh("data=8")
        x = jax.device_put(x, parallel.rows(mesh))
    else:
        kept = kept._replace(**{other: "other"})
    found = executables.compiled(kept, [name], x, mesh, lambda: squares(3).lower(x))
    np.testing.assert_array_equal(found(x), 3 * np.asarray(x) ** 2)


def test_functions_of_captured_values_are_not_mistaken_for_each_other(kept):
    """As two samplers that were tuned one after the other, which are one closure."""
    x = np.ones(2, np.float32)

    def tuned(number):
        return lambda: number

    for number in (2, 3):
        for part in (tuned(number), functools.partial(squares, number), [tuned(number)]):
            lower = lambda n=number: squares(n).lower(x)  # noqa: E731
            found = executables.compiled(kept, [squares, part], x, ONE, lower)
            assert found(x).tolist() == [number, number]
    assert not [*kept.folder.iterdir()]


def decorated(function, number=None):
    """A decorator with or without a number of its own."""

    @functools.wraps(function)
    def plain(*given):
        return function(*given)

    @functools.wraps(function)
    def numbered(*given):
        return function(*given), number

    return plain if number is None else numbered


def test_a_decorated_function_is_known_by_what_it_wraps(kept):
    x = np.ones(2, np.float32)
    for number, function in ((2, squares), (3, unused)):
        lower = lambda n=number: squares(n).lower(x)  # noqa: E731
        for build in (lower, unused):
            found = executables.compiled(kept, [decorated(function)], x, ONE, build)
            assert found(x).tolist() == [number, number]
    before = {*kept.folder.iterdir()}
    for number in (4, 5):
        part = decorated(squares, number)
        lower = lambda n=number: squares(n).lower(x)  # noqa: E731
        found = executables.compiled(kept, [part], x, ONE, lower)
        assert found(x).tolist() == [number, number]
    assert {*kept.folder.iterdir()} == before


def test_draws_of_every_sampler_are_kept():
    """In a process of its own, as the functions of this one are wrapped by a type checker."""
    code = """
from diffjax import samplers
from diffjax.run import executables, flags
from diffjax.types import Sampler
found = flags.constructors(samplers, Sampler)
print(len(found), len({executables._digest(s) for s in found.values()}))
print(*(name for name, s in found.items() if not executables._says_all(s)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    numbers, refused = done.stdout.splitlines()
    every, distinct = map(int, numbers.split())
    assert every == distinct > 20
    assert refused == ""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of one number, loaded before anything was kept."""
    path = tmp_path / "number_of_a_test.py"
    path.write_text("NUMBER = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(executables, "STARTED", path.stat().st_mtime_ns + 1)
    yield importlib.import_module("number_of_a_test"), path
    del sys.modules["number_of_a_test"]


def test_code_that_changed_is_traced_again(kept, module, monkeypatch):
    loaded, path = module
    x = np.ones(2, np.float32)

    def found():
        executables._stamp.cache_clear()  # as a new process
        lower = lambda: squares(loaded.NUMBER).lower(x)  # noqa: E731
        return executables.compiled(kept, ["f"], x, ONE, lower)(x).tolist()

    assert found() == [2, 2]
    loaded.NUMBER = 5
    assert found() == [2, 2]  # no file says so
    path.write_text("NUMBER = 500\n")
    assert found() == [5, 5]
    monkeypatch.setattr(executables, "STARTED", 0)
    path.write_text("NUMBER = 60000\n")
    loaded.NUMBER = 6
    assert found() == [6, 6]  # a file is newer than the process: not kept
    loaded.NUMBER = 7
    assert found() == [7, 7]


def test_a_program_that_did_not_change_is_not_compiled_again(kept, module, monkeypatch):
    x = np.ones(2, np.float32)
    executables.compiled(kept, ["f"], x, ONE, lambda: squares(2).lower(x))
    module[1].write_text("# longer\nNUMBER = 2\n")
    executables._stamp.cache_clear()
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *a: unused())
    found = executables.compiled(kept, ["f"], x, ONE, lambda: squares(2).lower(x))
    assert found(x).tolist() == [2, 2]


def test_damaged_files_are_made_anew(kept):
    x = np.ones(2, np.float32)
    for damage in (b"", b"not a pickle", pickle.dumps(({}, "no such program"))):
        executables.compiled(kept, ["f"], x, ONE, lambda: squares(2).lower(x))
        for path in kept.folder.glob("diffjax-*"):
            path.write_bytes(damage)
        found = executables.compiled(kept, ["f"], x, ONE, lambda: squares(2).lower(x))
        assert found(x).tolist() == [2, 2]
        for path in kept.folder.glob("diffjax-*"):
            path.unlink()


def test_what_cannot_be_kept_is_left_to_the_cache_of_jax(kept, monkeypatch):
    from jax.experimental import serialize_executable

    x, nothing = np.ones(2, np.float32), lambda *a: unused()
    monkeypatch.setattr(serialize_executable, "serialize", nothing)
    executables.compiled(kept, ["f"], x, ONE, lambda: squares(2).lower(x))
    monkeypatch.setattr(executables, "_without_persistent_cache", nothing)
    found = executables.compiled(kept, ["f"], x, ONE, lambda: squares(2).lower(x))
    assert found(x).tolist() == [2, 2]


def test_a_folder_that_cannot_be_written_is_no_error(kept):
    x = np.ones(2, np.float32)
    kept = kept._replace(folder=kept.folder / "none" / "there")
    found = executables.compiled(kept, ["f"], x, ONE, lambda: squares(2).lower(x))
    assert found(x).tolist() == [2, 2]


def test_shapes_are_those_of_a_trace(kept):
    init = lambda key: {"a": jnp.zeros((64, 32)), "b": [jnp.zeros(3, jnp.bfloat16)]}  # noqa: E731
    mesh = parallel.make_mesh("fsdp=8")
    first = executables.abstract(kept, init, mesh)
    again = executables.abstract(kept, lambda key: unused(), mesh)
    assert first == again == parallel.abstract(init, mesh, jax.random.key(0))
    assert again["a"].sharding.spec[0] == "fsdp"


def sampled(workdir, cache, monkeypatch, capsys, *flags):
    """The arrays that sample.py writes."""
    out = workdir.parent / "a.npz"
    given = ("--compilation-cache", cache, "--out", out, *FLAGS, *flags)
    code, _, err = run(monkeypatch, capsys, "sample", workdir, *given)
    assert code == 0, err
    return np.load(out)["samples"]


MORE = [("--sampler", "ancestral"), ("--guidance-scale", 3)]


@pytest.mark.parametrize(
    "flags", [(), *(pytest.param(f, marks=pytest.mark.exhaustive) for f in MORE)]
)
def test_a_draw_is_that_of_the_code_as_it_is_now(flags, trained, monkeypatch, capsys, tmp_path):
    """With kept functions and without, before and after the workdir's code was changed."""
    workdir, cache = tmp_path / "run", tmp_path / "cache"
    shutil.copytree(trained[0], workdir)
    before = sampled(workdir, cache, monkeypatch, capsys)
    code = (workdir / "config.py").read_text()
    if not flags:
        assert "predict_v" in code
        (workdir / "config.py").write_text(code.replace("predict_v", "predict_x0"))
    after = sampled(workdir, cache, monkeypatch, capsys, *flags)
    np.testing.assert_array_equal(after, sampled(workdir, "off", monkeypatch, capsys, *flags))
    assert np.any(after != before)
