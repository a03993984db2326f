"""Evaluation of a run: while it trains, its best step, its EMA lengths, and what it draws."""

import json
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import ROOT, run, start

from diffjax import checkpoint, parallel
from diffjax.data import digits
from diffjax.errors import InputError
from diffjax.evaluation import bits, drawn, sweeps
from diffjax.evaluation import training as during
from diffjax.run import best, snapshots
from diffjax.samplers import ddim, heun
from diffjax.training import init_state, update_averages
from diffjax.training.posthoc_ema import power_averages, power_ema

CONFIG = """
import jax, jax.numpy as jnp, optax
from flax import linen as nn
from diffjax import conditioning, losses, models, recipe, schedules, weighting
from diffjax.data import digits
from diffjax.experiment import Experiment, Sampling
from diffjax.parameterization import predict_v
from diffjax.training import ema
from diffjax.training.posthoc_ema import power_averages

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, t, cond, train=False):
        label = jax.nn.one_hot(cond["label"], 10)
        h = jnp.concatenate([x.reshape(x.shape[0], -1), t[:, None], label], axis=1)
        return nn.Dense(64)(nn.tanh(nn.Dense(32)(h))).reshape(x.shape)

def get_config(steps: int = 40, ema_lengths: tuple[float, ...] = (0.05, 0.1)) -> Experiment:
    schedule, label = schedules.vp_cosine(), (conditioning.label(10),)
    net, density = models.network(Net()), weighting.stratified(schedule)
    loss = losses.denoising_loss(net, schedule, predict_v, weighting.snr_plus_one, density)
    sampling = Sampling(steps=4)
    return Experiment(
        recipe.gaussian_model(Net(), schedule, predict_v, (8, 8, 1), label, sampling=sampling),
        digits, lambda frozen: loss, optax.adam(3e-3), steps=steps, batch_size=16,
        averages={"ema": ema(0.9), **power_averages(ema_lengths)},
    )
"""
EVERY = ("--evaluate-every", "8", "--evaluate-num", "40", "--checkpoint-every", "4")
EVERY += ("--keep-checkpoints", "1", "--sample-every", "0", "--best-metric", "recall")


# --- the best step ----------------------------------------------------------------------


def log(workdir, values):
    """A run's log with a metric at some steps."""
    rows = [json.dumps({"step": s, "loss": 1.0, "eval/kid": v}) for s, v in values.items()]
    (workdir / "metrics.jsonl").write_text("\n".join(rows) + '\n{"step": 99, "eval/ki')


def test_the_best_step_is_of_the_log(tmp_path):
    kept = best.Kept(tmp_path)
    kept.begin(0, "kid", "lower")
    for step, value in {10: 3.0, 20: 1.0, 30: 1.0, 40: 2.0}.items():
        kept.add(step, value)
    assert kept.best == best.Best(20, 1.0, "kid", "lower"), "of two alike the earlier"
    assert [step for step in (10, 20, 30, 40) if kept(step)] == [20]
    log(tmp_path, {10: 3.0, 20: 1.0, 30: 1.0, 40: 2.0})
    again = best.Kept(tmp_path)
    assert again.best == kept.best
    again.begin(40)
    assert again.best == kept.best
    again.begin(10)  # a run that goes on from an earlier step forgets what came after
    assert (again.best.step, again.best.value) == (10, 3.0)
    again.begin(40, "kid", "higher")
    assert again.best.step == 10
    (tmp_path / "best.json").write_text("{")
    with pytest.raises(InputError, match="delete it, and the best is sought anew"):
        best.Kept(tmp_path)


def test_a_run_never_evaluated_has_no_best(tmp_path):
    kept = best.Kept(tmp_path)
    kept.begin(50)
    assert kept.best.step == -1
    assert not (tmp_path / "best.json").exists()


def test_the_best_checkpoint_stays_beside_the_newest(tmp_path):
    held = {"best": 2}
    manager = checkpoint.manager(tmp_path, 2, lambda step: step == held["best"])
    for step in range(1, 6):
        checkpoint.save(manager, step, {"a": np.full(3, step)})
    checkpoint.finish(manager)
    assert sorted(manager.all_steps()) == [2, 4, 5]
    held["best"] = 5  # the one before may go
    for step in (6, 7, 8):
        checkpoint.save(manager, step, {"a": np.full(3, step)})
    checkpoint.finish(manager)
    assert sorted(manager.all_steps()) == [5, 7, 8]
    manager.close()


# --- EMA lengths ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The config above as a file, and its experiment."""
    from diffjax.run.config import load

    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(CONFIG)
    return path, load(path)


def wandering(experiment, steps):
    """States whose parameters wander, and the average of length 0.07 truly kept."""
    import optax

    averages = {**experiment.averages, "kept": power_ema(0.07)}
    params = experiment.model.init(jax.random.key(0))
    state = init_state(params, optax.identity(), averages=averages)
    rng = np.random.default_rng(0)
    values = dict(state.averages)
    update = jax.jit(lambda v, p, step: update_averages(v, p, step, averages))
    for step in range(steps):
        params = jax.tree.map(
            lambda p: p + 0.1 * rng.standard_normal(p.shape).astype(np.float32) + 0.02, params
        )
        values = update(values, params, jnp.asarray(step))
        known = {name: values[name] for name in experiment.averages}
        yield step + 1, state.replace(averages=known), values["kept"]


def test_a_rebuilt_length_is_the_one_truly_kept(config, tmp_path):
    experiment = config[1]()
    with pytest.raises(InputError, match=r"train with --ema-lengths 0\.05 0\.10"):
        snapshots.restore_length(tmp_path, experiment, parallel.make_mesh(), 0.07)
    manager = checkpoint.manager(tmp_path / "checkpoints", 1)
    keep = snapshots.keeper(experiment, tmp_path, manager, 0)
    for step, state, kept in wandering(experiment, 100):  # noqa: B007
        if step % 20 == 0:
            keep.save(step, state)
    keep.finish()
    keep.close()

    def distance(tree):
        leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(kept), strict=True)
        return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in leaves)

    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    found = snapshots.restore_length(tmp_path, experiment, mesh, 0.07)
    assert found.step == 100
    assert found.damaged == []
    near = distance(state.averages["power_0.05"])
    assert distance(found.params) < 0.2 * near
    same = snapshots.restore_length(tmp_path, experiment, mesh, 0.1).params
    wanted = state.averages["power_0.1"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), same, wanted)
    rough = snapshots.restore_length(tmp_path, experiment, mesh, 0.25, 40)
    assert "is a rough one from 2 snapshots" in rough.damaged[0]
    with pytest.raises(InputError, match="no snapshot 30"):
        snapshots.restore_length(tmp_path, experiment, mesh, 0.1, 30)
    # a run that goes on from an earlier step forgets what came after
    manager = checkpoint.manager(tmp_path / "checkpoints", 1)
    snapshots.keeper(experiment, tmp_path, manager, 60).close()
    assert snapshots.restore_length(tmp_path, experiment, mesh, 0.1).step == 60


def test_a_run_without_lengths_keeps_no_snapshots(config, tmp_path):
    experiment = config[1](ema_lengths=())
    manager = checkpoint.manager(tmp_path / "checkpoints", 1)
    snapshots.keeper(experiment, tmp_path, manager, 0).close()
    assert not (tmp_path / "snapshots").exists()
    with pytest.raises(InputError, match="two or more"):
        power_averages((0.1,))


# --- sweeps -----------------------------------------------------------------------------


def test_steps_for_a_number_of_calls():
    assert sweeps.steps_for(ddim, 10) == 10
    assert sweeps.steps_for(heun, 10) == 5  # 2n - 1 calls
    assert sweeps.steps_for(heun, 1) == 1


def test_the_best_point():
    points = [sweeps.Point(at, value, np.nan, np.nan) for at, value in ((1, 3.0), (2, 1.0))]
    assert sweeps.best_of(points, "lower").at == 2
    assert sweeps.best_of(points, "higher").at == 1


# --- whole runs -------------------------------------------------------------------------


def test_an_evaluation_is_refused_by_a_sentence(config):
    experiment, mesh = config[1](), parallel.make_mesh()
    with pytest.raises(InputError, match="at least 20 samples"):
        during.evaluator(experiment, digits(), config[0].parent, mesh, {}, 4)


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """A run of 40 steps, evaluated every 8."""
    workdir = tmp_path_factory.mktemp("evaluated") / "a"
    process = start("train", config[0], "--workdir", workdir, *EVERY)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return workdir, out


@pytest.mark.exhaustive
def test_metrics_are_logged_and_the_best_is_kept(undisturbed):
    workdir, out = undisturbed
    rows = [row for row in best.evaluations(workdir) if "eval/recall" in row]
    assert [row["step"] for row in rows] == [8, 16, 24, 32, 40]
    assert {"eval/frechet_distance", "eval/kid", "eval/classifier_agreement"} <= rows[0].keys()
    values = [row["eval/recall"] for row in rows]
    record = json.loads((workdir / "best.json").read_text())
    assert record["step"] == rows[int(np.argmax(values))]["step"]
    assert record["value"] == max(values)
    kept = {int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {record["step"], 40}
    assert f"is of --step {record['step']}" in out


@pytest.mark.exhaustive
def test_a_killed_run_evaluates_the_same(config, undisturbed, tmp_path):
    arguments = ("train", config[0], "--workdir", tmp_path / "b", *EVERY)
    process, log = start(*arguments), tmp_path / "b" / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and '"step": 16' in log.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start(*arguments)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    for name in ("metrics.jsonl", "best.json"):
        assert (tmp_path / "b" / name).read_text() == (undisturbed[0] / name).read_text()


@pytest.mark.exhaustive
def test_another_best_metric_is_refused(config, tmp_path):
    process = start("train", config[0], "--workdir", tmp_path, *EVERY[:-1], "beauty")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "--best-metric must be one of frechet_distance" in err
    assert "got 'beauty'" in err or "got beauty" in err


@pytest.mark.exhaustive
def test_one_command_evaluates_a_run(undisturbed, tmp_path, monkeypatch, capsys):
    workdir, _ = undisturbed
    flags = ("--num", "60", "--groups", "2", "--ema", "0.05,0.10,0.15", "--samplers", "ddim,heun")
    flags += ("--calls", "3,5", "--likelihood", "20", "--metric", "kid")
    command = [sys.executable, "-m", "diffjax.evaluate", str(workdir), *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    out, record = done.stdout, json.loads((workdir / "metrics.json").read_text())
    points = {p["at"]: p["value"] for p in record["ema"]["points"]}
    assert list(points) == [0.05, 0.1, 0.15]
    assert points[record["ema"]["best"]] == min(points.values())
    assert record["metrics"]["KID"]["value"] == min(points.values())
    assert f"sample.py {workdir} --ema {record['ema']['best']:g}" in out
    assert [p["at"] for p in record["calls"]["samplers"]["heun"]] == [3, 5]
    assert record["metrics"]["bits/dim of 20 training images"]["value"] > 0
    page = (workdir / "report.html").read_text()
    for head in ("Over training", "EMA lengths", "Quality against", "Denoising", "Likelihood"):
        assert f"<h2>{head}" in page
    # sample.py draws the same images with those weights
    length = record["ema"]["best"]
    given = ("sample", workdir, "--ema", length, "--num", 60, "--npz", tmp_path / "s.npz")
    code, _, err = run(monkeypatch, capsys, *given, "--out", tmp_path / "s.png")
    assert code == 0, err
    run_ = drawn.with_length(drawn.open_run(workdir), length)
    side = drawn.samples_of(run_, 60, 0, tmp_path / "again")
    assert side.fingerprint == record["samples"]["fingerprint"]
    with np.load(tmp_path / "s.npz") as file:
        assert np.mean(file["samples"] != side.images) < 1e-3  # roundings of another batch size
    one, all_ = (bits.bits_per_dim(run_, side.images[:n], side.labels[:n]) for n in (1, 20))
    np.testing.assert_allclose(one[0], all_[0], rtol=1e-4)
