"""`python -m diffjax.tune`: kept, resumed, used by sample.py, and what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import exact_denoiser, gaussian
from scripts import run, trained  # noqa: F401

from diffjax import samplers, schedules, tune
from diffjax.errors import InputError
from diffjax.run import tuned

SCHEDULE = schedules.vp_linear()
ASKED = {"learn_steps": 40, "learning_rate": 0.1}


def problem(n=64):
    """A Gaussian, whose fine solution is known."""
    from oracles import gaussian_flow

    x = jax.random.normal(jax.random.key(n), (n, 1))
    target = gaussian_flow([0.7], 0.3, SCHEDULE, x, 1.0, 0.0)
    denoiser = lambda params: exact_denoiser(gaussian([0.7], 0.3), SCHEDULE)  # noqa: E731
    return tune.Problem(SCHEDULE, denoiser, {}, x, None, target)


@pytest.mark.exhaustive
def test_learned_times_are_better_than_all_grids_and_kept(monkeypatch, tmp_path):
    """From other noise, at 3 calls; a second call tries nothing anew, and a lost one is made up."""
    monkeypatch.setattr(tune, "SAMPLERS", ("ddim", "dpmpp_2m"))
    monkeypatch.setattr(tune, "GRIDS", ("trailing", "karras"))
    given, record = (problem(64), problem(32)), tuned.read(tmp_path)
    tune.tune(tmp_path, record, given, 3, ASKED)
    kept = tuned.read(tmp_path)
    tried = kept["tried"]["3"]
    assert [c.source for c in tried] == ["trailing", "karras"] * 2 + ["learned", "decoupled"]
    found = tuned.best(kept, 3)
    assert found.source in ("learned", "decoupled")
    assert found.error < 0.7 * min(c.error for c in tried[:4])
    monkeypatch.setattr(tune, "measured", lambda *a: pytest.fail("tried again"))
    tune.tune(tmp_path, kept, given, 3, ASKED)
    usual = tuned.sampling_of(found, tune_model_sampling())
    x, ts = given[0].x, usual.grid(SCHEDULE, usual.steps)
    made = usual.sampler(SCHEDULE)
    out = samplers.sample(jax.random.key(0), given[0].denoiser({}), made, x, ts)
    error = float(jnp.sqrt(jnp.mean((out - given[0].target) ** 2)))
    np.testing.assert_allclose(error, found.error, rtol=1e-3)


def tune_model_sampling():
    from diffjax.experiment import Sampling

    return Sampling()


def test_bad_input(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="--calls must be at least 1"):
        tune.check({"calls": (0,), "num": 2, "learn_num": 2, "seed": 0, "learn_steps": 1})
    (tmp_path / "tuned.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        tuned.read(tmp_path)
    with pytest.raises(InputError, match="give the workdir"):
        tune.main([])


@pytest.mark.exhaustive
def test_sampling_uses_what_was_tuned_and_says_so(trained, monkeypatch, capsys):  # noqa: F811
    workdir, _ = trained
    few = ("--num", "8", "--learn-num", "8", "--learn-steps", "2")
    tune.main([str(workdir), "--calls", "2", *few])
    assert "2 calls  best: " in capsys.readouterr().out
    code, out, err = run(monkeypatch, capsys, "sample", workdir, "--num", 2, "--steps", 2)
    assert code == 0, err
    assert "sampler and times of" in out
    code, out, _ = run(
        monkeypatch, capsys, "sample", workdir, "--num", 2, "--steps", 2, "--grid", "karras"
    )
    assert (code, "sampler and times of" in out) == (0, False)
    record = json.loads((workdir / "tuned.json").read_text())
    assert record["setting"]["num"] == 8
