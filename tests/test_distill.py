"""Flow maps, their samplers, and the targets of few-step methods: identities and golden numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import (
    SCHEDULES,
    Mixture,
    exact_denoiser,
    gaussian,
    gaussian_flow,
    mixture_flow,
)
from tiny import randomised

from diffjax import distill, grids, models, prior_sample, sample, samplers, schedules
from diffjax.errors import InputError
from diffjax.models.network import network
from diffjax.parameterization import at_steps, make_denoiser, predict_eps, predict_v
from diffjax.types import Prediction

SLOW = pytest.mark.exhaustive


def rows(*values):
    """The first of a table's rows, and the others as longer ones."""
    return [values[0], *(pytest.param(value, marks=SLOW) for value in values[1:])]


GOLDEN = Path(__file__).parent / "golden"
BIMODAL = Mixture(np.array([0.6, 0.4]), np.array([[-1.0], [1.2]]), np.array([0.3, 0.5]))
MEAN, STD = 0.7, 0.4
LINE = schedules.rectified_flow()

pytestmark = pytest.mark.usefixtures("x64")


def gaussian_map(schedule, mean=MEAN, std=STD):
    """The exact flow map of a Gaussian in one dimension, as a denoiser of intervals."""

    def move(x, t, s, cond):
        t, s = (jnp.broadcast_to(value, x.shape[:1])[:, None] for value in (t, s))
        alpha, sigma = schedule.alpha, schedule.sigma
        before, after = (jnp.hypot(alpha(time) * std, sigma(time)) for time in (t, s))
        return alpha(s) * mean + after / before * (x - alpha(t) * mean)

    exact = exact_denoiser(gaussian([mean], std), schedule)
    return distill.as_denoiser(schedule, move, exact)


def mixture_map(schedule):
    """The exact flow map of BIMODAL, as a denoiser of intervals."""
    move = lambda x, t, s, cond: mixture_flow(BIMODAL, schedule, x, t, s)  # noqa: E731
    return distill.as_denoiser(schedule, move, exact_denoiser(BIMODAL, schedule))


# --- the oracle itself -------------------------------------------------------------------


@SLOW
def test_mixture_flow_is_the_ode():
    schedule = schedules.vp_linear()
    x = jnp.linspace(-2.5, 2.5, 7)[:, None]
    ts = jnp.linspace(1.0, 0.2, 2001)
    run = jax.jit(
        lambda x: samplers.sample(
            jax.random.key(0), exact_denoiser(BIMODAL, schedule), samplers.heun(schedule), x, ts
        )
    )
    np.testing.assert_allclose(mixture_flow(BIMODAL, schedule, x, 1.0, 0.2), run(x), atol=2e-5)


@SLOW
def test_mixture_flow_of_one_gaussian():
    x = jnp.linspace(-3, 3, 5)[:, None]
    one = Mixture(np.ones(1), np.array([[MEAN]]), np.array([STD]))
    ours = mixture_flow(one, LINE, x, 0.9, 0.2)
    np.testing.assert_allclose(ours, gaussian_flow([MEAN], STD, LINE, x, 0.9, 0.2), atol=1e-12)


# --- flow maps and their samplers --------------------------------------------------------


@pytest.mark.parametrize("name", rows("edm", "vp_cosine", "linear"))
def test_flow_map_sampler_is_exact_in_any_number_of_steps(name):
    schedule = SCHEDULES[name]
    x = prior_sample(jax.random.key(0), schedule, (6, 1))
    sampler = distill.flow_map_sampler(schedule)
    wanted = gaussian_flow([MEAN], STD, schedule, x, schedule.t_max, schedules.clean_time(schedule))
    for n in (1, 3):
        ts = grids.karras(schedule, n, rho=3.0)
        got = sample(jax.random.key(1), gaussian_map(schedule), sampler, x, ts)
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@SLOW
@pytest.mark.parametrize("gamma", [0.6, 0.0, 1.0])
def test_law_and_memory_under_gamma(gamma):
    """Moments of the law, and what noise leaves of the start: its product over the inner steps."""
    x = prior_sample(jax.random.key(0), LINE, (40_000, 1))
    ts = jnp.asarray([1.0, 0.6, 0.2, 0.0])
    run = jax.jit(
        lambda x, g: sample(
            jax.random.key(1), gaussian_map(LINE), distill.flow_map_sampler(LINE, g), x, ts
        )
    )
    y = run(x, gamma)
    np.testing.assert_allclose([y.mean(), y.std()], [MEAN, STD], atol=0.01)
    kept = 1.0
    for s in (0.6, 0.2):  # share of the deviation at s that is not new noise
        variance = (1 - s) ** 2 * STD**2 + s**2
        kept *= np.sqrt((variance - gamma**2 * s**2) / variance)
    np.testing.assert_allclose(np.corrcoef(x[:, 0], y[:, 0])[0, 1], kept, atol=0.015)


@SLOW
def test_consistency_sampler_keeps_the_law():
    schedule = schedules.edm()
    move = distill.flow_map(schedule, gaussian_map(schedule))
    denoiser = lambda x, t, cond: Prediction(move(x, t, jnp.zeros_like(t), cond))  # noqa: E731
    x = prior_sample(jax.random.key(0), schedule, (40_000, 1))
    ts = jnp.asarray([80.0, 0.8, 0.0])
    y = sample(jax.random.key(1), denoiser, distill.consistency_sampler(schedule), x, ts)
    np.testing.assert_allclose([y.mean(), y.std()], [MEAN, STD], atol=0.01)


@pytest.mark.parametrize("gamma", [-0.1, 1.5])
def test_gamma_out_of_range(gamma):
    with pytest.raises(InputError, match=r"gamma .* \[0, 1\]"):
        distill.flow_map_sampler(LINE, gamma)


@pytest.mark.parametrize("problem", rows("gaussian", "mixture"))
def test_identities_of_the_exact_map(problem):
    """Semigroup, limit, MeanFlow's identity and the shortcut's doubling."""
    denoiser = (gaussian_map if problem == "gaussian" else mixture_map)(LINE)
    move, u = distill.flow_map(LINE, denoiser), distill.average_velocity(LINE, denoiser)

    @jax.jit
    def pairs(x, t, middle, s):
        whole, v = move(x, t, s, None), u(x, t, t, None)
        doubled = distill.doubled_target(LINE, move, x, t, middle, s)
        target = distill.mean_flow_target(lambda x, t, s: u(x, t, s, None), x, t, s, v)
        return {
            "semigroup": (move(move(x, t, middle, None), middle, s, None), whole),
            "identity": (move(x, t, t, None), x),
            "limit": ((x - move(x, t, t - 1e-6, None)) / 1e-6, v),
            "mean flow": (target, u(x, t, s, None)),
            "doubling": (distill.jump(LINE, x, t, s, doubled), whole),
        }

    x = jnp.linspace(-2, 2, 9)[:, None]
    for name, (a, b) in pairs(x, *(jnp.full(9, value) for value in (0.9, 0.5, 0.2))).items():
        np.testing.assert_allclose(a, b, atol=1e-4 if name == "limit" else 1e-9, err_msg=name)


# --- golden numbers ----------------------------------------------------------------------


def golden(file, prefix=""):
    """The arrays of a file whose names begin so, without the beginning."""
    data = np.load(GOLDEN / file)
    return {k.removeprefix(prefix): data[k] for k in data.files if k.startswith(prefix)}


def golden_mixture():
    return Mixture(*(golden("few_step.npz", "problem/")[k] for k in ("weights", "means", "stds")))


@pytest.mark.parametrize("case", rows("4-2", "1-1", "16-16"))
def test_progressive_target(case):
    schedule, data = schedules.gvp(), golden("few_step.npz", f"progressive/{case}/")
    exact = exact_denoiser(golden_mixture(), schedule)
    got = distill.progressive_target(
        schedule, lambda x, t: exact(x, t, None), jnp.asarray(data["z_t"]), *map(float, data["t"])
    )
    np.testing.assert_allclose(got, data["x_target"], atol=1e-9)


@pytest.mark.parametrize("case", rows("41/13", "11/0", "11/9"))
def test_consistency_targets(case):
    schedule, data = schedules.edm(), golden("few_step.npz", f"consistency/{case}/")
    exact = exact_denoiser(golden_mixture(), schedule)
    low, high = map(float, data["t"])
    x = jnp.asarray(data["x_high"])
    heun = distill.heun_step(schedule, lambda x, t: exact(x, t, None), x, high, low)
    np.testing.assert_allclose(heun, data["x_heun"], atol=1e-9)

    def student(x, t):
        c = distill.consistency_preconditioning()(schedule, jnp.asarray(t))
        return c.c_skip * x + c.c_out * jnp.tanh(0.9 * c.c_in * x + 0.1 * jnp.log(t))

    np.testing.assert_allclose(student(x, high), data["student"], atol=1e-9)
    np.testing.assert_allclose(student(heun, low), data["cd_target_heun"], atol=1e-9)
    difference = student(x, high) - student(jnp.asarray(data["x_low"]), low)
    np.testing.assert_allclose(
        distill.pseudo_huber()(difference) / (high - low), data["ict_loss"], rtol=1e-7
    )


@pytest.mark.parametrize(
    ("schedule", "parameterization"),
    [
        (schedules.gvp(), predict_v),
        (schedules.edm(), distill.consistency_preconditioning(sigma_min=0.0)),
    ],
)
def test_weights_by_network_output_count_its_errors(schedule, parameterization):
    """Two networks that are 0.1 apart: 0.01 at each time, whatever x0_hat makes of it."""
    t = jnp.linspace(schedule.t_min, schedule.t_max, 7)[:-1]

    def x0(value):
        constant = lambda params, x, *_: jnp.full_like(x, value)  # noqa: E731
        made = make_denoiser(constant, {"a": jnp.zeros(2)}, schedule, parameterization)
        return made(jnp.ones((6, 1)), t, None).x0[:, 0]

    squared = (x0(0.3) - x0(0.2)) ** 2
    assert squared.max() / squared.min() > 10
    weight = distill.by_network_output(schedule, parameterization)(t, t / 2)
    np.testing.assert_allclose(weight * squared, 0.01, rtol=1e-6)


@SLOW
def test_heun_step_is_the_samplers():
    """For times of each sample, also to clean data and from alpha 0."""
    schedule = schedules.gvp()
    exact = exact_denoiser(golden_mixture(), schedule)
    x = jnp.asarray(golden("few_step.npz", "problem/")["z"])[:4]
    t, s = jnp.asarray([1.0, 0.9, 0.5, 0.3]), jnp.asarray([0.8, 0.5, 0.1, 0.0])
    got = distill.heun_step(schedule, lambda x, t: exact(x, t, None), x, t, s)
    sampler = samplers.heun(schedule)
    for i in range(4):
        wanted, _ = sampler.step((), lambda x, t: exact(x, t, None), x[i : i + 1], t[i], s[i], ())
        np.testing.assert_allclose(got[i : i + 1], wanted, atol=1e-12)


def test_curriculum():
    data = golden("few_step.npz", "curriculum/")
    total, first, last, _ = map(int, data["settings"])
    run = jax.jit(jax.vmap(lambda k: distill.doubling(k, total, first, last)))
    got = run(jnp.asarray(data["k"], int))
    np.testing.assert_array_equal(got, data["ict_N"])


@SLOW
@pytest.mark.parametrize("points", [41, 11])
def test_neighbours_have_the_golden_probabilities(points):
    data = golden("few_step.npz", f"consistency/{points}/")
    grid = np.asarray(distill.consistency_grid(points))
    n = 200_000
    high, low = distill.draw_neighbours(jax.random.key(0), n, jnp.asarray(points))
    index = np.searchsorted(grid, np.asarray(low) * (1 + 1e-9)) - 1
    np.testing.assert_allclose(low, grid[index], rtol=1e-9)
    np.testing.assert_allclose(high, grid[index + 1], rtol=1e-9)
    share = np.bincount(index, minlength=points - 1) / n
    bound = 5 * np.sqrt(data["p"] / n) + 1e-5
    assert np.all(np.abs(share - data["p"]) < bound)


@pytest.mark.parametrize("r", rows("0.5", "0.0", "1.0"))
def test_scm_tangent(r):
    """The golden data are of standard deviation 0.5: everything is divided by it."""
    data, std = golden("few_step.npz", "scm/"), 0.5
    phi = jnp.full(6, 0.7)
    case = {k.removeprefix("0.7000/"): v for k, v in data.items() if k.startswith("0.7000/")}
    for F in ("exact", "student"):
        given = case["x_t"] / std, case[f"{F}/F"], case[f"{F}/dF_dt"], case["velocity"] / std
        g = std * distill.tangent(phi, *map(jnp.asarray, given), float(r))
        np.testing.assert_allclose(g, case[f"{F}/g_r{r}"], atol=1e-9)
        np.testing.assert_allclose(distill.normalised(g), case[f"{F}/g_r{r}_normalised"], atol=1e-9)


@pytest.mark.parametrize(
    "case",
    ["0.25-0.125", pytest.param("0.0-0.5", marks=SLOW), pytest.param("0.5-0.25", marks=SLOW)],
)
def test_shortcut_target(case):
    """There t = 1 is data: our time is 1 - t and our velocity has the other sign."""
    start, d = map(float, case.split("-"))
    data = golden("few_step.npz", f"shortcut/{case}/")
    x = jnp.asarray(data["x"])

    def move(x, t, s, cond):
        t, d = 1 - t, t - s
        slope = 0.6 * jnp.tanh(x + 0.3 * d) * (1 + 0.5 * t) - 0.2 * jnp.sin(2 * t - d) * x
        return x + d * slope

    t = 1 - start
    x0 = distill.doubled_target(LINE, move, x, t, t - d, t - 2 * d)
    np.testing.assert_allclose((x0 - x) / t, data["target"], atol=1e-9)


@SLOW
def test_straightness():
    data, denoiser = golden("few_step.npz", "reflow/"), exact_denoiser(golden_mixture(), LINE)
    batch = {"x": jnp.asarray(data["x"]), "noise": jnp.asarray(data["z"])}
    nodes, weights = (jnp.asarray(data[f"straightness_{k}"]) for k in ("nodes", "weights"))
    ends = jnp.concatenate([jnp.ones(1), jnp.sort(nodes)[::-1], jnp.zeros(1)])
    ts = jnp.interp(jnp.arange(0, 13, 0.01), jnp.arange(14.0), ends)
    ts = jnp.append(ts, 0.0)
    path = samplers.sample_path(
        jax.random.key(0), denoiser, samplers.heun(LINE), batch["noise"], ts
    )
    np.testing.assert_allclose(path[-1], batch["x"], atol=1e-4)
    got = distill.straightness(LINE, denoiser, batch, path[100:1300:100], ts[100:1300:100], weights)
    np.testing.assert_allclose(got, data["straightness"], rtol=1e-4)


@SLOW
@pytest.mark.parametrize("scale", [7.5, 0.0])
@pytest.mark.parametrize("index", rows(25, 0, 1, 49))
def test_latent_consistency(index, scale):
    """One guided step and both predictions of the loss; its index and scale are drawn alone."""
    data = golden("lcm_distillation.npz")
    case = {k.split("/")[1]: v for k, v in data.items() if k.startswith(f"{index}-{scale}/")}
    schedule = schedules.from_betas(schedules.scaled_linear_betas())
    t, s = (jnp.asarray((k + 1) / 1000) for k in case["t"])
    x = jnp.asarray(case["x_t"])
    cond, uncond = (
        exact_denoiser(gaussian(data[f"{k}_mean"], float(data[f"{k}_std"])), schedule)
        for k in ("cond", "uncond")
    )
    guided = uncond(x, t, None).x0
    guided = guided + (1 + scale) * (cond(x, t, None).x0 - guided)
    x_s = distill.jump(schedule, x, t, s, guided)
    np.testing.assert_allclose(x_s, case["x_solver"], atol=2e-6)  # their betas are float32

    def student(x, t):
        c = distill.boundary(at_steps(predict_eps))(schedule, t)
        net = jnp.tanh(0.8 * x + 0.01 * scale) + 0.1 * (c.c_noise / 1000)
        return c.c_skip * x + c.c_out * net

    np.testing.assert_allclose(student(x, t), case["student"], atol=2e-5)
    target = student(jnp.asarray(case["x_solver"]), s)
    np.testing.assert_allclose(target, case["target"], atol=2e-5)
    huber = distill.elementwise_huber()(jnp.asarray(case["student"] - case["target"]))
    np.testing.assert_allclose(huber, case["loss_huber"], rtol=1e-6)


# --- networks of two times ---------------------------------------------------------------

VECTORS = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2)))
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 8, 2)))
F64 = {"dtype": jnp.float64}
NETWORKS = {
    "mlp": (models.ResidualMLP(width=8, depth=2, scan_blocks=True, remat=True, **F64), VECTORS),
    "dit": (
        models.DiT(
            width=8,
            depth=2,
            heads=2,
            patch_size=4,
            num_classes=0,
            learn_sigma=False,
            scan_blocks=True,
            remat=True,
            **F64,
        ),
        IMAGES,
    ),
    "edm": (
        models.SongUNet(channels=4, multipliers=(1,), blocks=1, attention_levels=(), **F64),
        IMAGES,
    ),
    "edm2": (models.EDM2UNet(channels=4, multipliers=(1,), blocks=1, **F64), IMAGES),
}


@pytest.mark.parametrize(
    "name",
    rows("mlp", "dit", "edm", "edm2"),
)
def test_two_times(name):
    """New, it is the network of one time; its JVP in all inputs is a central difference."""
    module, x = NETWORKS[name]
    t, s = jnp.asarray([0.9, 0.5, 0.3]), jnp.asarray([0.2, 0.1, 0.25])
    two = models.TwoTimes(module)
    cond = {"until": 10 * s}
    fresh = jax.jit(two.init)(jax.random.key(0), x, 100 * t, cond)["params"]
    params = randomised(two, x, 100 * t, cond)
    started = {**fresh, "module": params["module"]}
    old = jax.jit(network(module))(params["module"], x, 100 * t, None, None)
    new = jax.jit(network(two))
    np.testing.assert_allclose(new(started, x, 100 * t, cond, None), old, atol=1e-12)
    assert jnp.abs(new(params, x, 100 * t, cond, None) - old).max() > 1e-3

    def output(x, t, s):
        return new(params, x, 100 * t, {"until": 10 * s}, None)

    tangents = jnp.ones_like(x), jnp.ones_like(t), -0.3 * jnp.ones_like(s)
    _, slope = jax.jit(lambda *a: jax.jvp(output, a, tangents))(x, t, s)
    step = 1e-5
    high, low = (
        output(*(a + sign * step * d for a, d in zip((x, t, s), tangents, strict=True)))
        for sign in (1, -1)
    )
    # Norms and embeddings that are float32 by design bound the difference, not the JVP.
    np.testing.assert_allclose(slope, (high - low) / (2 * step), atol=2e-3 * jnp.abs(slope).max())


def test_two_times_says_what_is_missing():
    two = models.TwoTimes(models.ResidualMLP(width=8, depth=1))
    with pytest.raises(InputError, match="until"):
        jax.eval_shape(two.init, jax.random.key(0), VECTORS, jnp.ones(3), None)
    bare = models.TwoTimes(models.UViT(width=8, depth=1, heads=2, patch_size=4, num_classes=0))
    cond = {"until": jnp.ones(3)}
    with pytest.raises(InputError, match="no embedding of time"):
        jax.eval_shape(bare.init, jax.random.key(0), IMAGES, jnp.ones(3), cond)
