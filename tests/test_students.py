"""Students: their teachers, the schedules that they are moved to, and whole runs of a tiny one."""

import json
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import draw, exact_denoiser, gaussian, gaussian_flow, network_of
from scripts import ROOT, run, saved

from diffjax import (
    conditioning,
    distill,
    grids,
    models,
    parallel,
    recipe,
    samplers,
    schedules,
    weighting,
)
from diffjax.errors import InputError
from diffjax.parameterization import make_denoiser, predict_v
from diffjax.types import Prediction

SLOW = pytest.mark.exhaustive
DATA = gaussian([0.7], 0.4)
CIRCLE, LINE = schedules.gvp(), schedules.rectified_flow()
TINY = ("--channels", 8, "--multipliers", 1, "--batch-size", 8)
QUIET = ("--sample-every", 0, "--log-every", 1)


# --- parts of the drivers, on a Gaussian --------------------------------------------------


def test_a_network_of_one_schedule_on_another_is_that_ones_denoiser():
    """E[x0 | x_t] is known on both; the network and the denoiser are moved apart."""
    old = schedules.vp_linear()
    network = network_of(exact_denoiser(DATA, old), old, predict_v)
    x, t = jnp.linspace(-2, 2, 5)[:, None], jnp.linspace(0.05, 0.95, 5)
    wanted = exact_denoiser(DATA, LINE)(x, t, None).x0
    moved = make_denoiser(network, {"a": jnp.zeros(5)}, LINE, distill.predicted_on(predict_v, old))
    np.testing.assert_allclose(moved(x, t, None).x0, wanted, atol=2e-5)
    known = distill.denoiser_on(exact_denoiser(DATA, old), old, LINE)
    np.testing.assert_allclose(known(x, t, None).x0, wanted, atol=2e-5)


def test_heun_leaves_noise_on_a_coarse_grid_of_noise_levels_and_none_on_one_even_in_time():
    """The deviation at the end of a consistency function's target, over that of the flow."""
    cosine, data = schedules.vp_cosine(), gaussian([0.0], 0.5)
    denoise = lambda x, t: exact_denoiser(data, cosine)(x, t, None)  # noqa: E731

    @jax.jit
    def end(ts):
        step = lambda x, t: (distill.heun_step(cosine, denoise, x, *t), None)  # noqa: E731
        pairs = jnp.stack([ts[:-1], ts[1:]], 1)[..., None]
        return jax.lax.scan(step, jnp.ones((1, 1)), pairs)[0][0, 0]

    wanted = gaussian_flow([0.0], 0.5, cosine, jnp.ones((1, 1)), cosine.t_max, 0.0)[0, 0]
    np.testing.assert_allclose(end(distill.even_times(cosine, 16)) / wanted, 1, atol=0.01)
    assert end(grids.karras(cosine, 10)) / wanted > 1.15


@pytest.mark.exhaustive
def test_pairs_are_noise_and_where_the_flow_leads_it():
    seen = {}

    def loss(params, key, batch):
        seen.update(batch)
        return jnp.zeros(()), {}

    ts = jnp.linspace(1.0, 0.0, 60)
    given = CIRCLE, lambda frozen: exact_denoiser(DATA, CIRCLE), samplers.dpmpp_2m(CIRCLE), ts
    distill.on_pairs(loss, *given)({}, jax.random.key(0), {"x": jnp.zeros((6, 1))}, frozen={})
    wanted = gaussian_flow([0.7], 0.4, CIRCLE, seen["noise"], 1.0, 0.0)
    np.testing.assert_allclose(seen["x"], wanted, atol=5e-3)


@pytest.mark.exhaustive
def test_stages_are_progressive_distillation_whose_teacher_is_the_student_before():
    schedule, zeros = schedules.vp_linear(), {"a": jnp.zeros(5)}
    network = network_of(exact_denoiser(DATA, schedule), schedule, predict_v)
    known = lambda frozen: exact_denoiser(DATA, schedule)  # noqa: E731
    wrong = {"a": 0.3 * jnp.ones(5)}
    own = lambda params: make_denoiser(network, params, schedule, predict_v)  # noqa: E731
    batch = {"x": draw(jax.random.key(0), DATA, 8)}
    given = network, schedule, predict_v
    loss = distill.progressive_stages(*given, known, 8, 10, weighting.snr_plus_one)
    rows = [(3, zeros, known, 4, zeros), (10, wrong, lambda f: own(wrong), 2, wrong)]
    rows += [
        (13, wrong, lambda f: own(zeros), 2, zeros),
        (99, wrong, lambda f: own(zeros), 1, zeros),
    ]
    for iteration, params, teacher, steps, kept in rows:
        context = {"iteration": iteration, "teacher_params": zeros}
        value, aux = loss(params, jax.random.key(1), batch, frozen={}, **context)
        one = distill.progressive_distillation(*given, teacher, steps, weighting.snr_plus_one)
        np.testing.assert_allclose(
            value, one(params, jax.random.key(1), batch, frozen={})[0], rtol=1e-4
        )
        assert aux["steps"] == steps
        np.testing.assert_array_equal(aux["context"]["teacher_params"]["a"], kept["a"])


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_velocity_of_guided_data(scale):
    """v + (w - 1) (u(label) - u(null)): N(0, 1) without the label here, and a point with it."""

    def guesses(frozen):
        def denoiser(x, t, cond):
            t, null = t[:, None], (cond["label"] == 1)[:, None]
            return Prediction(jnp.where(null, (1 - t) * x / ((1 - t) ** 2 + t**2), 1.0))

        return denoiser

    velocity = distill.guided_data(LINE, guesses, {"label": jnp.asarray(1)})
    x0, eps, t = jnp.ones((3, 1)), jnp.full((3, 1), -0.5), jnp.full(3, 0.4)
    x_t = 0.6 * x0 + 0.4 * eps
    cond = {"label": jnp.zeros(3, int), "guidance_scale": jnp.full(3, scale)}
    got = velocity(None, x0, eps, x_t, t, cond)
    base = (0.4 - 0.6) / (0.6**2 + 0.4**2) * x_t  # of N(0, 1): d log(std)/dt times x
    np.testing.assert_allclose(got, scale * (eps - x0) + (1 - scale) * base, rtol=1e-4)


def test_the_generator_of_moment_matching_follows_the_gap_of_two_denoisers():
    """One step from noise alone to N(m, a^2): the slope of the loss in a is known."""
    a, m, std = 0.7, 0.7, 0.4
    teacher = exact_denoiser(DATA, CIRCLE)

    def network(params, x, c_noise, cond, key):
        if "a" in params:
            return m + params["a"] * x
        critic = exact_denoiser(gaussian([m], a), CIRCLE)
        return critic(x, c_noise / 1000, None).x0 + 0 * params["b"]

    from diffjax.parameterization import predict_x0

    loss = distill.moment_matching(
        network, CIRCLE, predict_x0, lambda frozen: teacher, 1, jnp.ones_like, every=1
    )
    params = {"generator": {"a": jnp.asarray(a)}, "critic": {"b": jnp.asarray(0.0)}}
    batch = {"x": jnp.zeros((40_000, 1))}
    run_ = jax.jit(jax.grad(loss, has_aux=True))
    slope, _ = run_(params, jax.random.key(0), batch, frozen={})
    u = np.linspace(1e-3, 1, 4001)
    alpha, sigma = CIRCLE.alpha(1 - u), CIRCLE.sigma(1 - u)
    gain = lambda s: alpha * s**2 / (alpha**2 * s**2 + sigma**2)  # noqa: E731
    wanted = np.trapezoid(np.asarray((gain(a) - gain(std)) * alpha * a), u) / (1 - 1e-3)
    np.testing.assert_allclose(slope["generator"]["a"], wanted, rtol=0.03)


# --- teachers that cannot be -----------------------------------------------------------------


def base_of(schedule=CIRCLE, side=8, width=8):
    module = models.adm_unet(width, (1,), 1, num_classes=2)
    label = conditioning.label(2)
    return recipe.gaussian_model(module, schedule, predict_v, (side, side, 1), (label,)), module


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"side": 16}, r"shape \(16, 16, 1\)"),
        ({"schedule": LINE}, "another noise schedule"),
        ({"width": 16}, "give the flags of the network"),
    ],
)
def test_a_teacher_of_another_kind(other, says):
    base, _ = base_of()
    model, _ = base_of(**other)
    params = jax.eval_shape(model.init, jax.random.key(0))
    teacher = distill.frozen_teacher(base, "runs/teacher", lambda path: (model, lambda: params))
    with pytest.raises(InputError, match=says):
        teacher.load()


def test_no_teacher_and_scales_out_of_order():
    with pytest.raises(InputError, match="give --teacher"):
        distill.frozen_teacher(base_of()[0], None, lambda path: None)
    with pytest.raises(InputError, match="lowest and the highest"):
        distill.at_drawn_scales(lambda *a: None, (2.0, 1.0))
    with pytest.raises(InputError, match="2, 4, 8"):
        distill.stages_of(6)


OTHER = """
from diffjax import recipe, schedules
from diffjax.parameterization import predict_eps, predict_v

def get_config(teacher: str | None = None, side: int = 8, line: bool = False, eps: bool = False):
    import digits
    from diffjax import distill
    if eps:  # whose x0 is not finite where the schedule ends
        distill.drifting(lambda *given: None, schedules.gvp(), predict_eps)
    made = digits.get_config()
    model = made.model
    if line:
        model = model._replace(schedule=schedules.rectified_flow())
    example = model.example.update(shape=(side, side, 1))
    return made._replace(model=model._replace(example=example))
"""


@pytest.fixture
def untrained(tmp_path):
    """(options) -> a workdir of a model like that of the digits that was never trained."""

    def made(**options):
        work = tmp_path / "teacher"
        (work / "checkpoints").mkdir(parents=True)
        (work / "config.py").write_text(OTHER)
        (work / "digits.py").write_text((ROOT / "configs" / "digits.py").read_text())
        record = {"config": "other.py", "options": options, "modules": []}
        (work / "config.json").write_text(json.dumps(record))
        return work

    return made


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"side": 16}, "draws samples of shape (16, 16, 1), the student of (8, 8, 1)"),
        ({"line": True}, "was trained with another noise schedule"),
    ],
)
def test_a_teacher_of_other_data_or_noise_is_refused(
    options, says, untrained, monkeypatch, capsys, tmp_path
):
    """Before its weights are read, which this one has none of."""
    monkeypatch.chdir(ROOT)
    flags = ("--teacher", untrained(**options), "--workdir", tmp_path / "w", *TINY, *QUIET)
    code, _, err = run(monkeypatch, capsys, "train", "configs/digits_dmd2.py", *flags)
    assert (code, says in err, err.count("\n")) == (2, True, 1), err


def test_a_parameterization_that_the_method_cannot_use(untrained, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    config = untrained() / "config.py"
    flags = ("--eps", "--workdir", tmp_path / "w", *QUIET)
    code, _, err = run(monkeypatch, capsys, "train", config, *flags)
    assert (code, "not finite at t = 1" in err, "Predict v, x0" in err) == (2, True, True), err
    assert not (tmp_path / "w" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("digits_dmd2", ("--steps", 0), "at least 1"),
        ("digits_drifting", ("--steps", 0), "at least 1"),
        ("digits_progressive", ("--stage-steps", 0), "training steps of a stage"),
        ("digits_progressive", ("--teacher-steps", 6), "2, 4, 8"),
        ("digits_consistency", ("--teacher", "nowhere"), "nowhere"),
    ],
)
def test_flags_that_cannot_be(name, flags, says, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    common = f"configs/{name}.py", "--workdir", tmp_path / "w", *TINY, *QUIET
    code, _, err = run(monkeypatch, capsys, "train", *common, *flags)
    assert (code, says in err) == (2, True), err


@SLOW
def test_a_student_begins_as_its_teacher_with_guidance():
    """At the teacher's weights, whatever the numbers are; the guided teacher is classifier-free."""
    base, module = base_of()
    params = jax.tree.map(
        lambda a: a + 0.1 * jax.random.normal(jax.random.key(a.size), a.shape),
        base.init(jax.random.key(0)),
    )
    known = distill.frozen_teacher(base, "x", lambda path: (base, lambda: params))
    x, t = jax.random.normal(jax.random.key(1), (2, 8, 8, 1)), jnp.asarray([0.3, 0.8])
    cond = {"label": jnp.asarray([0, 1])}
    plain = lambda cond: base.denoiser(params)(x, t, cond).x0  # noqa: E731
    for numbers in ((), (distill.SCALE,), (distill.UNTIL, distill.SCALE)):
        student = distill.student(base, module, predict_v, numbers)
        began = student.start(student.model.init(jax.random.key(2)), known.load())
        got = student.model.denoiser(began)(x, t, cond).x0
        np.testing.assert_allclose(got, plain(cond), atol=1e-5)
    scales = jnp.asarray([1.0, 3.0])
    guided = known.denoiser({"teacher": params})(x, t, {**cond, distill.SCALE: scales}).x0
    null = plain({"label": jnp.asarray([2, 2])})
    wanted = null + scales[:, None, None, None] * (plain(cond) - null)
    np.testing.assert_allclose(guided, wanted, atol=1e-4)
    assert isinstance(known.denoiser({"teacher": params})(x, t, cond), Prediction)


# --- a whole run -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A tiny digits model of one step."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        code, _, err = trained(patch, "configs/digits.py", workdir, "--steps", 1)
        assert code == 0, err
    return workdir


def trained(monkeypatch, config, workdir, *flags):
    class Silent:
        readouterr = staticmethod(lambda: ("", ""))

    return run(monkeypatch, Silent, "train", config, "--workdir", workdir, *TINY, *QUIET, *flags)


@contextmanager
def stopped_after_two():
    """A stop that is asked before each step, and comes at the third time."""
    asked = iter((False, False, True))
    yield lambda: next(asked)


THREE = {  # flags of three steps, and what the state keeps
    "digits_dmd2": (
        ("--steps", 3),
        lambda state: set(state["params"]) == {"generator", "critic", "head"},
    ),
    "digits_progressive": (
        ("--teacher-steps", 8, "--stage-steps", 1),
        lambda state: "module" in state["context"]["teacher_params"],
    ),
}


@SLOW
@pytest.mark.parametrize("name", THREE)
def test_a_student_is_trained_resumed_exactly_and_sampled_in_one_step(
    name, teacher, monkeypatch, capsys, tmp_path
):
    """With a critic, or with the student before; and the teacher's fingerprint."""
    monkeypatch.chdir(ROOT)
    steps, keeps = THREE[name]
    common = f"configs/{name}.py", "--teacher", teacher, *TINY, *QUIET, *steps
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "stop_together", stopped_after_two)
        code, said, err = run(monkeypatch, capsys, "train", *common, "--workdir", parts)
        assert (code, "stopped at step 2 of 3" in said) == (0, True), err
    for workdir in (parts, whole):
        code, _, err = run(monkeypatch, capsys, "train", *common, "--workdir", workdir)
        assert code == 0, err
    record = json.loads((parts / "config.json").read_text())
    assert len(record["fingerprints"]["teacher"]) == 16
    states = [saved(workdir, 3) for workdir in (whole, parts)]
    assert states[0]["context"]["iteration"] == 3
    assert keeps(states[0])
    jax.tree.map(np.testing.assert_array_equal, *states)
    out = tmp_path / "a.npz"
    flags = "--num", 3, "--steps", 1, "--guidance-scale", 1.5, "--out", out
    code, text, err = run(monkeypatch, capsys, "sample", parts, *flags)
    assert code == 0, err
    assert ", 1 steps" in text
    assert np.load(out)["samples"].shape == (3, 8, 8, 1)
    code, _, err = run(monkeypatch, capsys, "sample", parts, "--steps", 0)
    assert (code, "--steps must be at least 1" in err) == (2, True)
    flags = *common, "--workdir", tmp_path / "new", "--channels", 16
    code, _, err = run(monkeypatch, capsys, "train", *flags)
    assert code == 2
    assert "give the flags of the network that they were trained with" in err
    assert not (Path(tmp_path) / "new" / "checkpoints" / "1").exists()
