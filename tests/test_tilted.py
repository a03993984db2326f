"""`sample.py --corrected`: the compiled draw has the tilted law; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import run

from diffjax import conditioning, schedules
from diffjax.experiment import Model, classifier_free
from diffjax.run import tilted
from diffjax.run.draw import make_draw
from diffjax.types import Prediction

FLOW = schedules.rectified_flow()


def gaussians(params):
    """The exact denoiser of N(1, 1/4) for label 0 and of N(0, 1) for the null."""

    def denoise(x, t, cond):
        given = (cond["label"] == 0)[:, None]
        mean, variance = jnp.where(given, 1.0, 0.0), jnp.where(given, 0.25, 1.0)
        alpha, sigma = (jnp.broadcast_to(f(t), x.shape[:1])[:, None] for f in FLOW[:2])
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return Prediction(mean + gain * (x - alpha * mean))

    return denoise


def test_the_compiled_draw_has_the_tilted_law():
    """p(x | c)^2 / p(x) of N(1, 1/4) and N(0, 1) is N(8/7, 1/7); guidance alone has 1/16."""
    x, label = jax.ShapeDtypeStruct((1,), jnp.float32), conditioning.label(1)
    model = Model(lambda key: {}, gaussians, x, FLOW, (label,), guide=classifier_free)
    count, ts = 4000, jnp.linspace(1.0, 0.0, 151)
    draw = make_draw(
        tilted.of_pairs(model), tilted.corrected, {"scale": 2.0}, loop=tilted.particles
    )
    raw = {"label": np.zeros(count, np.int32)}
    y, size = draw.samples({}, {}, jax.random.key(3), ts, raw, count, 2.0)
    assert 300 < size < count
    assert abs(y.mean() - 8 / 7) < 4 * (1 / 7 / size) ** 0.5
    assert abs(y.var() - 1 / 7) < 4 / 7 * (2 / size) ** 0.5


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--guidance-scale", "1", "--label", "1"], "give a --guidance-scale other than 1"),
        (["--guidance-scale", "2"], "give all samples the same, such as --label 3"),
        (["--guidance-scale", "2", "--label", "1", "--sampler", "heun"], "leave out --sampler"),
        (["--guidance-scale", "2", "--label", "1", "--gif", "a.gif"], "must end in one of"),
    ],
)
def test_refused(flags, says, trained, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, "sample", trained[0], "--corrected", *flags)
    assert code == 2
    assert says in err
    assert not [*tmp_path.iterdir()]


def test_particles_are_drawn_by_the_script_and_their_number_said(
    trained, monkeypatch, capsys, tmp_path
):
    flags = ("--guidance-scale", 1.5, "--label", 1, "--num", 12, "--batch-size", 8, "--steps", 4)
    npz = tmp_path / "a.npz"
    code, out, err = run(
        monkeypatch, capsys, "sample", trained[0], "--corrected", *flags, "--out", npz
    )
    assert code == 0, err
    assert "particles at the smallest effective sample size" in out
    assert np.load(npz)["samples"].shape == (12, 8, 8, 1)
