"""A medium, condition, codec, augmentation and frozen networks that the package does not know.

They are defined in a config and a module beside it, and go through train.py and sample.py.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from scripts import run, saved

SMALL = Path(__file__).parent / "faults" / "small_run.py"

MEDIUM = '''
"""Waves of 16 numbers, written as text."""

import jax, jax.numpy as jnp, numpy as np
from diffjax.codec import Codec, Sink, Writer
from diffjax.conditioning import Condition
from diffjax.errors import InputError


def write_waves(path, num, raw):
    lines = []

    def close():
        path.write_text("".join(lines))
        return f"{num} waves in {path}"

    return Sink(lambda x: lines.extend(" ".join(f"{v:.3f}" for v in w) + "\\n" for w in x), close)


def pitch():
    def flags(num, pitch: float = 1.0):
        """Flags.

        Args:
          pitch: cycles of every wave.
        """
        if not 0 < pitch < 4:
            raise InputError(f"--pitch must be between 0 and 4; got {pitch}.")
        return {"pitch": np.full(num, pitch, np.float32)}

    def encode(frozen, raw):  # a text encoder would be such a network
        return {"vector": raw["pitch"][:, None] * frozen["ear"]["w"][None]}

    example = {"pitch": jax.ShapeDtypeStruct((), jnp.float32)}
    return Condition(example, {"pitch": np.float32(0)}, flags, encode)


def halved():
    """What is diffused are the waves through a frozen autoencoder."""
    encode = lambda frozen, x: x @ frozen["ear"]["code"]
    decode = lambda frozen, x: x @ jnp.linalg.inv(frozen["ear"]["code"])
    return Codec(encode, decode, {".waves": Writer(write_waves)})
'''

CONFIG = """
import medium
import jax, jax.numpy as jnp, numpy as np, optax
from diffjax import losses, schedules, training, weighting
from diffjax.data import Arrays, Source
from diffjax.experiment import Experiment, Model, Sampling, classifier_free
from diffjax.parameterization import make_denoiser, predict_x0
from diffjax.run.weights import from_run


def flipped(example, rng):
    return {{**example, "x": example["x"] * rng.choice([-1, 1])}}


def waves():
    pitch = np.linspace(0.5, 3, 64, dtype=np.float32)
    x = np.sin(pitch[:, None] * np.arange(16) / 16 * 2 * np.pi).astype(np.float32)
    return Source(Arrays(x=x, pitch=pitch), (16,), 0)


def net(params, x, t, cond, key=None):
    return x @ params["w"] + cond["vector"] @ params["v"]


def get_config(steps: int = 4, ear: float = 2.0) -> Experiment:
    schedule = schedules.rectified_flow()
    loss = losses.denoising_loss(
        net, schedule, predict_x0, weighting.unit, weighting.uniform(schedule)
    )
    teacher = from_run({teacher!r})
    ears = {{"w": jnp.full((3,), ear), "code": jnp.eye(16) * 0.5}}
    model = Model(
        init=lambda key: {{"w": jnp.zeros((16, 16)), "v": jnp.zeros((3, 16))}},
        denoiser=lambda params: make_denoiser(net, params, schedule, predict_x0),
        example=jax.ShapeDtypeStruct((16,), jnp.float32),
        schedule=schedule,
        conditions=(medium.pitch(),),
        codec=medium.halved(),
        guide=classifier_free,
        frozen={{"ear": lambda: ears}},
        sampling=Sampling(steps=3),
    )

    def from_teacher(frozen):
        size = sum(leaf.sum() for leaf in jax.tree.leaves(frozen["teacher"]))

        def with_teacher(params, key, batch, **context):
            value, aux = loss(params, key, batch, **context)
            return value + 0 * size, aux | {{"teacher": size}}

        return with_teacher

    return Experiment(
        model=model,
        source=waves,
        loss=from_teacher,
        optimizer=optax.adam(1e-2),
        frozen={{"teacher": teacher.load}},
        augment=(flipped,),
        averages={{"ema": training.ema(0.9), "slow": training.ema(0.99)}},
        steps=steps,
        batch_size=8,
    )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("house")
    (made / "medium.py").write_text(MEDIUM)
    (made / "config.py").write_text(CONFIG.format(teacher=str(made / "teacher")))
    return made


def test_all_of_it_from_outside_the_package(folder, monkeypatch, capsys, tmp_path):
    quiet = ("--sample-every", 0, "--log-every", 1)
    code, _, err = run(
        monkeypatch, capsys, "train", SMALL, "--workdir", folder / "teacher", "--steps", 2,
        "--width", 8, *quiet,
    )  # fmt: skip
    assert code == 0, err
    train = ("train", folder / "config.py", "--workdir", tmp_path / "w", *quiet)
    code, out, err = run(monkeypatch, capsys, *train)
    assert code == 0, err
    assert "samples in" not in out  # such a medium has no picture
    record = json.loads((tmp_path / "w/config.json").read_text())
    assert set(record["fingerprints"]) == {"ear", "teacher"}
    assert record["modules"] == ["medium"]
    state = saved(tmp_path / "w", 4)
    assert set(state["averages"]) == {"ema", "slow"}
    leaves = sum(np.size(leaf) for leaf in jax.tree.leaves(state["params"]))
    assert leaves == 16 * 16 + 3 * 16  # nothing frozen is in it
    line = json.loads((tmp_path / "w/metrics.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(line["teacher"])

    draw = ("sample", tmp_path / "w", "--num", 5, "--batch-size", 2)
    out = tmp_path / "five.waves"
    code, said, err = run(
        monkeypatch, capsys, *draw, "--pitch", 2, "--guidance-scale", 2, "--out", out
    )
    assert code == 0, err
    assert f"5 waves in {out}" in said
    assert np.loadtxt(out).shape == (5, 16)
    code, said, _ = run(monkeypatch, capsys, "sample", tmp_path / "w", "--list", "conditions")
    assert "--pitch" in said
    for flags, words in (
        (("--pitch", 5, "--out", out), "between 0 and 4"),
        (("--out", tmp_path / "a.png"), ".waves"),
        (("--out", tmp_path / "a"), ".waves"),
    ):
        code, _, err = run(monkeypatch, capsys, *draw, *flags)
        assert code == 2
        assert words in err

    again = (*train, "--steps", 6, "--ear", 3.0, "--allow-changes", "ear")
    code, _, err = run(monkeypatch, capsys, *again)
    assert code == 2
    assert "frozen network 'ear' is not the one" in err
