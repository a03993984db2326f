"""Latents on disk: what is written, read and refused, and a writer that is killed."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import ROOT, run

from diffjax import data
from diffjax.errors import InputError
from diffjax.latents import cache
from diffjax.run.autoencoder import open_autoencoder
from diffjax.run.weights import fingerprint

cached_module = importlib.import_module("diffjax.latents.cached")

CONFIG = '''
"""A tiny autoencoder of digits."""

from diffjax import data, recipe
from diffjax.experiment import Experiment


@recipe.flags(
    train=recipe.defaults(recipe.cosine_adam, steps=1, batch_size=8),
    autoencoder=recipe.defaults(recipe.autoencoder, channels=(8,), latent_channels=2),
)
def get_config(train, autoencoder) -> Experiment:
    """The experiment."""
    parts = autoencoder((8, 8, 1))
    return Experiment(
        model=recipe.autoencoder_model(parts, (8, 8, 1)),
        source=data.digits,
        loss=lambda frozen: parts.loss,
        context=parts.context,
        parts={"autoencoder": parts.autoencoder},
        **train._asdict(),
    )
'''


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A trained autoencoder, through train.py."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:

        class Captured:
            def readouterr(self):
                return "", ""

        command = ("train", folder / "config.py", "--workdir", folder / "w", "--sample-every", 0)
        code, _, _ = run(patch, Captured(), *command)
    assert code == 0
    return folder / "w"


def start(workdir, *arguments):
    flags = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "diffjax.latents.cache", str(workdir), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=flags
    )


def shards(folder):
    return sorted(Path(folder).glob("latents-*.array_record"))


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def whole(workdir):
    """The latents of one run of the command that nothing disturbs."""
    cache.main([str(workdir), "--shard-size", "8", "--compilation-cache", "off"])
    return workdir / "latents"


@pytest.mark.slow
@pytest.mark.exhaustive
def test_killed_three_times_it_ends_with_the_same_bytes(workdir, whole, tmp_path):
    folder, seen = tmp_path / "latents", {}
    for wanted in (5, 60, 140):
        process = start(workdir, "--shard-size", 8, "--out", folder)
        while len(shards(folder)) < wanted:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert wanted <= len(shards(folder)) < 225
        for path, before in seen.items():  # what stood is not written again
            assert path.stat().st_mtime_ns == before
        seen = {path: path.stat().st_mtime_ns for path in shards(folder)}
        with pytest.raises(InputError, match=r"are not complete \(\d+ of 225 shards are missing"):
            cached_module.cached(folder)
    process = start(workdir, "--shard-size", 8, "--out", folder)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert all(path.stat().st_mtime_ns == before for path, before in seen.items())
    assert contents(folder) == contents(whole)


def test_latents_are_the_autoencoders_and_have_unit_variance(workdir, whole):
    coder, load = open_autoencoder(workdir)
    source = cached_module.cached(whole, data.digits(), fingerprint(load()))
    assert len(source.examples) == 1797
    assert source.shape == coder.shape == (4, 4, 2)
    rows = [source.examples[i] for i in (0, 900, 1796)]
    x = np.stack([data.digits().examples[i]["x"] for i in (0, 900, 1796)])
    mean, logvar = jax.jit(coder.encode)(load(), jnp.asarray(x))
    scale = cached_module.read_scale(whole)
    back = scale.to_autoencoder(jnp.stack([row["x"] for row in rows]))
    np.testing.assert_allclose(back, mean, rtol=1e-4, atol=1e-5)
    std = np.stack([row["std"] for row in rows]) / np.asarray(scale.factor, np.float32)
    np.testing.assert_allclose(std, np.exp(logvar / 2), rtol=1e-4)
    assert [row["label"] for row in rows] == [0, *data.digits().examples.arrays["label"][[900, -1]]]
    every = source.examples.arrays
    total = (every["x"].astype(np.float64) ** 2 + every["std"] ** 2).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(total, 1, rtol=1e-4)


def test_draws_have_the_posterior(whole):
    example = cached_module.cached(whole).examples[3]
    rng = np.random.default_rng(0)
    drawn = np.stack([cached_module.drawn(example, rng)["x"] for _ in range(4000)])
    assert "std" not in cached_module.drawn(example, rng)
    error = (drawn.mean(0) - example["x"]) / (example["std"] / np.sqrt(4000))
    assert abs(error).max() < 5
    np.testing.assert_allclose(drawn.std(0), example["std"], rtol=0.1)


def test_another_autoencoder_or_other_data_are_refused(whole):
    with pytest.raises(InputError, match="are of another autoencoder"):
        cached_module.cached(whole, autoencoder="0123456789abcdef")
    fewer = data.without_last(data.digits(), 1)
    with pytest.raises(InputError, match="are of other data than those given"):
        cached_module.cached(whole, fewer)
    record = json.loads((whole / "cache.json").read_text())
    with pytest.raises(InputError, match=r"holds latents of another shard_size \(8, now 16\)"):
        cache.claim(whole, record | {"shard_size": 16})
    with pytest.raises(InputError, match="holds no latents"):
        cached_module.cached(whole / "nothing")


def test_points_have_no_spread(tmp_path):
    """Latents before a codebook: log-variance -inf, and a draw is the mean."""
    examples = data.Arrays(x=np.arange(6.0, dtype=np.float32).reshape(3, 2, 1))
    record = {"count": 3, "shard_size": 2, "shards": 2, "shape": [2, 1]}
    record |= {"autoencoder": "a", "data": cached_module.data_fingerprint(examples)}
    cache.claim(tmp_path, record)
    cache.write(tmp_path, lambda x: (x, np.full_like(x, -np.inf)), examples, record, batch=2)
    cache.finish(tmp_path)
    source = cached_module.cached(tmp_path)
    x = source.examples.arrays["x"]
    np.testing.assert_allclose(
        x.reshape(-1), (np.arange(6) - 2.5) / np.std(np.arange(6)), rtol=1e-6
    )
    example = cached_module.drawn(source.examples[1], np.random.default_rng(0))
    np.testing.assert_array_equal(example["x"], x[1])


def test_a_run_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.py").write_text((ROOT / "configs" / "digits.py").read_text())
    (tmp_path / "config.json").write_text('{"options": {}}')
    with pytest.raises(InputError, match="is no run of an autoencoder"):
        open_autoencoder(tmp_path)


@pytest.mark.exhaustive
def test_two_processes_write_the_same_bytes(workdir, whole, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    given = ["--shard-size", 8, "--out", tmp_path / "latents", "--distributed"]
    given += ["--coordinator", f"localhost:{port}", "--num-processes", 2, "--process-id"]
    for process in [start(workdir, *given, number) for number in (0, 1)]:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert contents(tmp_path / "latents") == contents(whole)
