"""Checkpoints: exact, checked, and walked back when damaged."""

import asyncio
import dataclasses
import gc
import itertools
import json
import os
import sys
import threading
import time
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import checkpoint, checksums, training
from diffjax.errors import InputError


def state(seed):
    params = {"w": jax.random.normal(jax.random.key(seed), (64, 3)), "b": jnp.zeros(3)}
    return training.init_state(params, optax.adam(1e-3), {"seen": jnp.array(seed)})


@pytest.fixture
def saved(tmp_path):
    manager = checkpoint.manager(tmp_path)
    for step in (10, 20):
        checkpoint.save(manager, step, state(step))
    manager.close()
    return tmp_path


def data_files(folder, step):
    """Every file that holds array data; Orbax may have more than one copy of it."""
    return list((folder / str(step) / "state").rglob("d/*"))


def restore(folder, **kwargs):
    manager = checkpoint.reader(folder)
    try:
        return checkpoint.restore(manager, jax.eval_shape(lambda: state(0)), **kwargs)
    finally:
        manager.close()


def test_restores_bit_for_bit(saved):
    got = restore(saved)
    assert got.step == 20
    assert got.damaged == []
    chex.assert_trees_all_equal(got.state, state(20))


def test_an_earlier_step_by_name(saved):
    chex.assert_trees_all_equal(restore(saved, step=10).state, state(10))
    with pytest.raises(InputError, match=r"no checkpoint 15 .*\[20, 10\]"):
        restore(saved, step=15)


def test_nothing_saved_is_none(tmp_path):
    assert restore(tmp_path) is None


def restore_fields(folder, **fields):
    manager = checkpoint.reader(folder)
    try:
        return checkpoint.restore_fields(manager, fields)
    finally:
        manager.close()


def test_a_field_alone(saved):
    """A part of the state is read without the rest, and walked back over by its own checksums."""
    averages = state(0).averages
    got = restore_fields(saved, averages=averages)
    assert (got.step, got.damaged) == (20, [])
    assert set(got.state) == {"averages"}
    chex.assert_trees_all_equal(got.state["averages"], state(20).averages)
    with pytest.raises(InputError, match="another network"):
        restore_fields(saved, averages={"ema": {"w": averages["ema"]["w"]}})
    for path in data_files(saved, 20):
        os.truncate(path, path.stat().st_size // 2)
    got = restore_fields(saved, averages=averages)
    assert got.step == 10
    assert "checkpoint 20 is damaged" in got.damaged[0]
    chex.assert_trees_all_equal(got.state["averages"], state(10).averages)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_named_and_walked_back_over(saved, damage):
    for path in data_files(saved, 20):
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        if damage == "truncate":
            path.write_bytes(content[: len(content) // 2])
        if damage == "delete":
            path.unlink()
    got = restore(saved)
    assert got.step == 10
    assert len(got.damaged) == 1
    assert "checkpoint 20 is damaged" in got.damaged[0]
    chex.assert_trees_all_equal(got.state, state(10))


def test_the_other_reads_of_a_damaged_step_leave_no_traceback(tmp_path, monkeypatch, caplog):
    """Many leaves in eight parts each, so that most reads are under way when the first fails."""
    spread = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.array(jax.devices()), "x"), jax.sharding.PartitionSpec("x")
    )
    leaves = jax.random.normal(jax.random.key(0), (30, 64, 256))
    tree = {f"w{i}": jax.device_put(leaf, spread) for i, leaf in enumerate(leaves)}
    manager = checkpoint.manager(tmp_path)
    for step in (10, 20):
        checkpoint.save(manager, step, tree)
    checkpoint.finish(manager)
    for path in data_files(tmp_path, 20):
        os.truncate(path, path.stat().st_size // 2)
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: ignored.append(raised.exc_type))
    assert checkpoint.restore(manager, tree).step == 10
    gc.collect()
    manager.close()
    assert ignored == []
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_no_intact_step_says_so(saved):
    for step in (10, 20):
        for path in data_files(saved, step):
            path.unlink()
    with pytest.raises(InputError, match="no intact checkpoint"):
        restore(saved)


def test_the_state_of_another_network_is_not_called_damaged(saved):
    def other():
        now = state(0)
        params = {"kernel": now.params["w"], "b": now.params["b"]}
        return dataclasses.replace(now, params=params)

    manager = checkpoint.reader(saved)
    with pytest.raises(InputError, match="state of another network: 2 leaves differ in name, such"):
        checkpoint.restore(manager, jax.eval_shape(other))
    manager.close()


def test_old_steps_are_dropped(tmp_path):
    manager = checkpoint.manager(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoint.save(manager, step, state(step))
    manager.close()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["2", "3"]


def test_a_save_is_a_snapshot_even_if_the_buffers_are_donated(tmp_path):
    manager = checkpoint.manager(tmp_path, keep=None)
    advance = jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)
    current = {"w": jnp.zeros(1_000_000)}
    for step in range(8):
        checkpoint.save(manager, step, current)
        for _ in range(5):
            current = advance(current)
    manager.wait_until_finished()
    for step in range(8):
        got = checkpoint.restore(manager, {"w": jnp.zeros(1_000_000)}, step)
        np.testing.assert_array_equal(got.state["w"], 5 * step)
    manager.close()


def test_any_one_change_of_a_sharded_array_changes_its_checksum():
    mesh = jax.make_mesh((4, 2), ("a", "b"), (jax.sharding.AxisType.Auto,) * 2)
    values = np.random.default_rng(0).normal(size=(8, 6, 4)).astype(np.float32)
    whole = checkpoint.checksums({"w": values})
    for spec in (("a",), ("a", "b"), (None, None, "a"), ("b", None, "a"), ()):
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        assert checkpoint.checksums({"w": jax.device_put(values, sharding)}) == whole
    for dtype in (np.uint8, np.float16, np.float32, np.int64):
        array = np.arange(24).reshape(2, 3, 4).astype(dtype)
        before = checkpoint.checksums({"w": array})
        flat = array.reshape(-1).view(np.uint8)
        for byte in range(flat.size):
            for bit in (1, 128):
                flat[byte] ^= bit
                assert checkpoint.checksums({"w": array}) != before
                flat[byte] ^= bit
        assert checkpoint.checksums({"w": array[:, ::-1]}) != before


# Printed by the release before, whose checkpoints must still be read.
OLD = {
    "uint8": 8258955008243556565,
    "float16": 7853120750532470272,
    "float32": 4674470221820461056,
    "int64": 2097329290488625109,
    "bool": 9393641478178789033,
}


@pytest.mark.parametrize("dtype", OLD)
def test_checksums_are_those_of_old_checkpoints(dtype):
    values = np.arange(-5, 25).reshape(2, 3, 5).astype(dtype)
    (value,) = checkpoint.checksums({"w": values}).values()
    assert checksums.as_before(value) == OLD[dtype]
    assert (value == OLD[dtype]) == (dtype != "int64")


def test_an_old_checkpoint_is_restored(tmp_path, x64):
    """Its checksums are in one file of another name, and one word for each element of 8 bytes."""
    tree = {"w": jnp.arange(7.0), "half": jnp.arange(9, dtype=jnp.float32)}
    manager = checkpoint.manager(tmp_path)
    checkpoint.save(manager, 1, tree)
    checkpoint.finish(manager)
    folder = tmp_path / "1" / "checksums"
    values = json.loads((folder / "process_0.json").read_text())
    (folder / "process_0.json").unlink()
    old = {name: checksums.as_before(value) for name, value in values.items()}
    assert old["['w']"] != values["['w']"]
    (folder / "metadata").write_text(json.dumps(old))
    chex.assert_trees_all_equal(checkpoint.restore(manager, tree).state, tree)
    old["['w']"] ^= 1
    (folder / "metadata").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"checksum mismatch in \['w'\]"):
        checkpoint.restore(manager, tree)
    manager.close()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", "int64", "complex128"])
def test_two_elements_that_change_places_change_the_checksum(dtype):
    """Those that differ in the sign alone too, whose difference is the highest bit."""
    values = (1 + np.arange(12)).astype(dtype)
    values[6:] = -values[:6]
    before = checkpoint.checksums({"w": values})
    for i, j in itertools.combinations(range(12), 2):
        swapped = values.copy()
        swapped[[i, j]] = values[[j, i]]
        assert checkpoint.checksums({"w": swapped}) != before


def test_parts_of_any_cut_add_up():
    """Along each axis, in blocks and beyond them."""
    rng = np.random.default_rng(0)
    for shape in ((), (0,), (3, 1, 5), (70_001, 3), (2, 70_001), (200_003,)):
        values = rng.integers(0, 2**32, shape, np.uint32)
        place = np.arange(values.size, dtype=object).reshape(shape)
        sums = int(np.sum(values.astype(object) * (1 + 2 * checksums.K * place))) % 2**64
        assert checkpoint.checksums({"w": values}) == {"['w']": sums}
        for axis, size in enumerate(shape):
            cut = size // 3
            index = [(slice(None),) * axis + (part,) for part in (slice(cut), slice(cut, size))]
            rest = (slice(None),) * (len(shape) - axis - 1)
            parts = [checksums.Part(values[i], shape, i + rest) for i in index]
            assert checksums.sums({"w": parts}) == {"w": sums}


def test_checksums_are_computed_while_the_files_are_written(tmp_path, monkeypatch):
    """`save` returns before; what is checked is the state as it was, though it is donated."""
    may_go_on = threading.Event()

    def waiting(of):
        assert may_go_on.wait(60)
        return checksums.sums(of)

    monkeypatch.setattr(checkpoint, "sums", waiting)
    manager = checkpoint.manager(tmp_path)
    add = jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)
    checkpoint.save(manager, 1, {"w": (before := jnp.zeros(100_000))})
    after = jax.block_until_ready(add({"w": before}))
    may_go_on.set()
    checkpoint.finish(manager)
    monkeypatch.undo()
    np.testing.assert_array_equal(checkpoint.restore(manager, after).state["w"], 0)
    manager.close()


def test_other_event_loops_are_left_alone():
    """One that is given up with a task under way ends at once, as ever."""

    async def abandoning():
        task = asyncio.get_running_loop().create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        return task

    usual = asyncio.new_event_loop
    with checkpoint.loops_that_end():
        assert asyncio.new_event_loop is usual
        loop = asyncio.new_event_loop()
        task = loop.run_until_complete(abandoning())
        assert not task.done()
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()


@pytest.mark.exhaustive
def test_checksums_take_at_most_twice_the_time_of_crc32():
    values = np.random.default_rng(0).normal(size=20_000_000).astype(np.float32)

    def seconds(function):
        began = time.perf_counter()
        function()
        return time.perf_counter() - began

    pairs = [
        (seconds(lambda: checkpoint.checksums({"w": values})), seconds(lambda: zlib.crc32(values)))
        for _ in range(7)
    ]
    assert np.median([ours / crc for ours, crc in pairs]) < 2
