"""One step on one device, eight, sharded or mapped: the same numbers, in a share of the memory."""

import json
import shutil
from functools import partial
from itertools import islice
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import linen as nn
from jax.sharding import PartitionSpec
from scripts import run

from configs.digits import get_config
from diffjax import checkpoint, losses, models, parallel, schedules, training, weighting
from diffjax.errors import InputError
from diffjax.parallel.mesh import check_batch, shares, sizes
from diffjax.parallel.pmap import pieces_for, stack_microbatches
from diffjax.parameterization import predict_v

STEPS, BATCH = 20, 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (8, 1, 1)),
        ("data=4,fsdp=2", (4, 2, 1)),
        ("fsdp=8", (1, 8, 1)),
        ("fsdp=-1", (1, 8, 1)),
        ("data=2,fsdp=-1,tensor=2", (2, 2, 2)),
        ("tensor=2", (4, 1, 2)),
        ("data=-1,fsdp=4", (2, 4, 1)),
    ],
)
def test_sizes_of_a_mesh(text, expected):
    assert sizes(text, 8) == expected
    assert parallel.make_mesh(text).devices.shape == expected


@pytest.mark.parametrize(
    "text",
    ["data=3", "fsdp=16", "data=-1,fsdp=-1", "model=2", "data", "data=x", "fsdp=0", "data=-2"],
)
def test_a_mesh_that_cannot_be_is_refused(text):
    with pytest.raises(InputError, match="--mesh"):
        sizes(text, 8)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), PartitionSpec()),
        ((64,), PartitionSpec()),
        ((100, 10), PartitionSpec()),
        ((1024, 4096), PartitionSpec("fsdp", "tensor")),
        ((4096, 1024), PartitionSpec("fsdp", "tensor")),
        ((3, 3, 512, 64), PartitionSpec(None, None, "fsdp", "tensor")),
        ((12, 64, 1023), PartitionSpec(None, "fsdp", None)),
        ((8192,), PartitionSpec("fsdp")),
        ((101, 103), PartitionSpec(None, None)),
    ],
)
def test_the_rule(shape, expected):
    assert parallel.spec(shape, parallel.make_mesh("fsdp=4,tensor=2")) == expected


def test_fsdp_holds_an_eighth_of_the_state_on_each_device():
    experiment = get_config(channels=32, multipliers=(1, 2))
    shapes = jax.eval_shape(
        lambda key: training.init_state(experiment.model.init(key), experiment.optimizer),
        jax.random.key(0),
    )
    zeros = lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)  # noqa: E731
    leaves = jax.tree.leaves(parallel.init_sharded(zeros, parallel.make_mesh("fsdp=8")))
    whole = sum(leaf.nbytes for leaf in leaves)
    for device in range(8):
        held = sum(leaf.addressable_shards[device].data.nbytes for leaf in leaves)
        assert held == pytest.approx(whole / 8, rel=0.1)


class Net(nn.Module):
    """Two layers, with dropout: everything random that a network has."""

    @nn.compact
    def __call__(self, x, t, cond, train):
        h = jnp.concatenate([x, t[:, None] / 1000, jax.nn.one_hot(cond["label"], 10)], axis=1)
        h = nn.Dropout(0.1, deterministic=not train)(nn.tanh(nn.Dense(256)(h)))
        return nn.Dense(64)(h)


def _loss(module):
    schedule = schedules.vp_cosine()
    net, density = models.network(module), weighting.stratified(schedule)
    return losses.denoising_loss(net, schedule, predict_v, weighting.snr_plus_one, density)


def _init(key):
    return Net().init(key, jnp.zeros((1, 64)), jnp.zeros(1), {"label": jnp.zeros(1, int)}, False)[
        "params"
    ]


def _batches():
    generator = np.random.default_rng(0)
    for _ in range(STEPS):
        x = generator.uniform(-1, 1, (BATCH, 64)).astype(np.float32)
        yield {"x": x, "label": generator.integers(0, 10, BATCH)}


def _devices(form):
    return jax.devices()[: {"one device": 1, "two devices": 2}.get(form, 8)]


def _trained(form, folder=None, start=0, steps=STEPS):
    """Parameters and losses after some steps of SGD, of a batch in eight pieces.

    With a folder the run begins at the step saved there, if any, and its end is saved.
    """
    optimizer = optax.sgd(0.05)
    make = partial(training.make_train_step, _loss(Net()), optimizer, accumulate=8)
    mesh = parallel.make_mesh(form if "=" in form else "", _devices(form))
    init, root = (parallel.init_sharded(jax.random.key, mesh, seed) for seed in (0, 1))
    state = parallel.init_sharded(
        lambda key: training.init_state(_init(key), optimizer), mesh, init
    )
    batches = islice(_batches(), start, None)
    if form == "pmap":
        step = parallel.pmap_step(make(divide=parallel.pmap_gradient))
        batches = stack_microbatches(batches, pieces=8, devices=8)
    else:
        step = make(divide=partial(parallel.fsdp_gradient, mesh=mesh))
        step, batches = (
            parallel.jit_step(step, state, mesh),
            parallel.to_global_arrays(batches, mesh),
        )
    manager = folder and checkpoint.manager(folder)
    if start:
        state = checkpoint.restore(manager, state).state
    values = []
    note = lambda i, state, metrics: values.append(metrics["loss"])  # noqa: E731
    state = training.fit(step, state, root, batches, steps, [note])
    if folder:
        checkpoint.save(manager, steps, state)
        manager.close()
    return jax.device_get((state.params, state.ema_params, values))


@pytest.fixture(scope="module")
def one_device():
    return _trained("one device")


LONGER = [pytest.param(form, marks=pytest.mark.exhaustive) for form in ("data=8", "fsdp=8")]


@pytest.mark.parametrize("form", [*LONGER, "data=2,fsdp=2,tensor=2", "pmap"])
def test_every_form_trains_the_same(form, one_device):
    got = _trained(form)
    chex.assert_trees_all_close(got, one_device, rtol=0, atol=1e-6)
    assert len(set(map(float, got[2]))) == STEPS  # it did train


def _block_gradient(mesh=None, **options):
    """(compiled gradient of a DiT of six scanned blocks, its arguments), on a mesh or without."""
    module = models.DiT(width=64, depth=6, heads=2, num_classes=10, scan_blocks=True, **options)
    gradient = training.loss_gradient(_loss(module), {})
    x, label = jax.random.normal(jax.random.key(1), (16, 8, 8, 3)), jnp.arange(16) % 10
    inputs = x[:1], jnp.zeros(1), {"label": label[:1]}
    params = tiny.randomised(module, *inputs, scale=0.1)
    given = params, jax.random.key(2), {"x": x, "label": label}, {}
    if mesh is None:
        return jax.jit(gradient), given
    whole = parallel.replicated(mesh)
    placed = parallel.shardings(params, mesh), whole, parallel.rows(mesh), whole
    step = jax.jit(parallel.fsdp_gradient(gradient, 1, mesh), in_shardings=placed)
    return step.lower(*given).compile(), jax.device_put(given, placed)


@pytest.mark.parametrize("remat", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_blocks_in_a_scan_gather_their_own_parameters(remat):
    """Of a block that is computed again no device ever holds the parameters of all six whole."""
    step, given = _block_gradient()
    expected = step(*given)
    step, given = _block_gradient(parallel.make_mesh("data=2,fsdp=2,tensor=2"), remat=remat)
    value, _, gradient, _ = step(*given)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    jax.tree.map(tiny.close, expected[2], jax.device_get(gradient))
    step, _ = _block_gradient(parallel.make_mesh("fsdp=8"), remat=remat)
    program = step.as_text()
    assert "f32[1,64,256]" in program  # the kernel of one block's first layer
    assert ("f32[6,64,256]" in program) is not remat


@pytest.mark.exhaustive
def test_saved_on_eight_devices_goes_on_on_two_and_one(one_device, tmp_path):
    _trained("fsdp=8", tmp_path / "8", steps=10)
    for form in ("two devices", "one device"):
        shutil.copytree(tmp_path / "8", tmp_path / form)
        params, ema, values = _trained(form, tmp_path / form, start=10)
        expected = (*one_device[:2], one_device[2][10:])
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=0, atol=1e-6), (params, ema, values), expected
        )


def test_a_batch_that_does_not_divide_is_refused():
    mesh = parallel.make_mesh("data=4,fsdp=2")
    check_batch(32, 4, mesh)
    with pytest.raises(InputError, match="multiple of 32"):
        check_batch(40, 4, mesh)
    assert pieces_for(48, 6, 8) == 24
    with pytest.raises(InputError, match="multiple of 24"):
        pieces_for(32, 6, 8)


def test_pmap_refuses_a_loss_that_carries_a_context():
    def loss(params, key, batch, seen):
        return jnp.mean((params["w"] - batch["x"]) ** 2), {"context": {"seen": seen + 1}}

    optimizer = optax.sgd(0.1)
    state = training.init_state({"w": jnp.zeros(())}, optimizer, {"seen": jnp.zeros((), int)})
    step = training.make_train_step(loss, optimizer, accumulate=8, divide=parallel.pmap_gradient)
    with pytest.raises(InputError, match="--parallel jit"):
        parallel.pmap_step(step)(state, jax.random.key(0), {"x": jnp.ones((8, 1, 2))}, {})


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([[0], [0], [1], [1]], {0: (0, 2), 1: (1, 2)}),
        ([[0, 0], [1, 1]], {0: (0, 2), 1: (1, 2)}),
        ([[0, 1], [0, 1]], {0: (0, 1), 1: (0, 1)}),
        ([[1], [0], [1], [0]], {0: (1, 2), 1: (0, 2)}),
        ([[0, 1], [0, 1], [2, 3], [2, 3]], {0: (0, 2), 1: (0, 2), 2: (1, 2), 3: (1, 2)}),
    ],
)
def test_shares_of_a_batch(processes, expected):
    assert shares(np.array(processes)) == expected


@pytest.mark.exhaustive
def test_train_py_with_pmap_is_train_py_in_as_many_pieces(monkeypatch, capsys, tmp_path):
    config = Path(__file__).parent / "faults" / "small_run.py"
    common = ("--batch-size", 64, "--steps", 6, "--log-every", 2, "--sample-every", 0, "--workdir")
    forms = {
        "pmap": ("--parallel", "pmap"),
        "pieces": ("--accumulate", 8, "--mesh", "fsdp=2"),
    }
    for name, flags in forms.items():
        code, _, err = run(monkeypatch, capsys, "train", config, *flags, *common, tmp_path / name)
        assert code == 0, err
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in forms]
    for mapped, sharded in zip(*lines, strict=True):
        assert json.loads(mapped) == pytest.approx(json.loads(sharded), abs=1e-6)
