"""ODE solvers: golden values, order of convergence, and the ends of the grid."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest

from diffjax import grids, samplers, schedules
from diffjax.errors import InputError
from diffjax.samplers import Amed
from diffjax.types import Prediction

GOLDEN = Path(__file__).parent / "golden"
KEY = jax.random.key(0)

SCHEDULES = {
    "betas": schedules.from_betas(schedules.linear_betas()),
    "vp_linear": schedules.vp_linear(),
    "vp_cosine": schedules.vp_cosine(),
    "edm": schedules.edm(),
}

# Name: (constructor, order of convergence with a warm-up and an end of short steps).
SOLVERS = {
    "euler": (samplers.euler, 1),
    "heun": (samplers.heun, 2),
    "dpm_2": (samplers.dpm_2, 2),
    "rk4": (samplers.rk4, 4),
    "lms_2": (partial(samplers.lms, order=2), 2),
    "lms_3": (partial(samplers.lms, order=3), 3),
    "lms_4": (samplers.lms, 4),
    "plms": (samplers.plms, 2),
    "dpm_solver_3": (samplers.dpm_solver, 3),
    "dpmpp_2s": (samplers.dpmpp_2s, 2),
    "dpmpp_2m": (samplers.dpmpp_2m, 2),
    "dpmpp_3m": (partial(samplers.dpmpp_multistep, order=3), 2),
    "deis_2": (partial(samplers.deis, order=2), 2),
    "deis_3": (samplers.deis, 3),
    "unipc_1": (partial(samplers.unipc, order=1), 2),
    "unipc_2": (partial(samplers.unipc, order=2), 3),
    "unipc_2_bh1": (partial(samplers.unipc, order=2, variant="bh1"), 3),
    "unipc_3": (samplers.unipc, 4),
    "midpoint": (samplers.midpoint, 2),
    "amed": (samplers.amed, 2),
    "decoupled": (samplers.decoupled, 2),
}
# amed and midpoint are dpm_2 at their defaults, decoupled is dpmpp_2m.
NAMES = [name for name in SOLVERS if name not in ("amed", "midpoint", "decoupled")]
# One of each kind of code, for what does not depend on the order.
KINDS = ["rk4", "lms_4", "plms", "dpm_solver_3", "dpmpp_2s", "dpmpp_3m", "deis_3", "unipc_3"]


@partial(jax.jit, static_argnums=(0, 1))
def scan(sampler, denoiser, x, ts):
    """What `sample_path` does, without the keys that no ODE solver wants."""

    def body(carry, interval):
        x, state = carry
        x, state = sampler.step(None, lambda x, t: denoiser(x, t, None), x, *interval, state)
        return (x, state), x

    _, path = jax.lax.scan(body, (x, sampler.init(x, ts)), (ts[:-1], ts[1:]))
    return jnp.append(x[None], path, axis=0)


def drive(sampler, denoiser, x, ts):
    """Every x along the grid (n + 1, B, d)."""
    return np.asarray(scan(sampler, denoiser, jnp.asarray(x), jnp.asarray(ts)))


def golden_problem(file):
    data = np.load(GOLDEN / file)
    fields = (data[f"problem/{name}"] for name in ("weights", "means", "stds"))
    return data, oracles.Mixture(*fields), data["problem/z"]


# --- golden values -----------------------------------------------------------------------

K_DIFFUSION = [
    ("dpm_2-karras-12", samplers.dpm_2, 1e-9),
    ("dpmpp_2s-karras-12", samplers.dpmpp_2s, 1e-9),
    ("lms-karras-12", samplers.lms, 1e-4),
]


@pytest.mark.parametrize(
    ("case", "make", "tolerance"), K_DIFFUSION, ids=lambda v: v if isinstance(v, str) else ""
)
def test_matches_k_diffusion(x64, case, make, tolerance):
    data, mixture, z = golden_problem("k_sigma_space.npz")
    schedule = schedules.edm(0.02, 80.0)
    ts = data[f"{case}/sigmas"]
    path = drive(make(schedule), oracles.exact_denoiser(mixture, schedule), z * ts[0], ts)
    np.testing.assert_allclose(path[:-1], data[f"{case}/trace"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(path[-1], data[f"{case}/result"], rtol=0, atol=tolerance)


DIFFUSERS = {
    "dpmpp_{}m": samplers.dpmpp_multistep,
    "unipc_{}": samplers.unipc,
    "deis_{}": samplers.deis,
}


@pytest.mark.parametrize("family", DIFFUSERS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("table", ["linear", "cosine"])
def test_matches_diffusers(x64, family, order, table):
    """Float32 references; under the cosine table theirs carries 1e-4 of rounding at alpha 5e-5."""
    data, mixture, z = golden_problem("discrete_time.npz")
    case = f"{family.format(order)}-{table}-linspace-15"
    schedule = schedules.from_betas(getattr(schedules, f"{table}_betas")(1000))
    ts = np.append(data[f"{case}/timesteps"] + 1, 1) / 1000
    sampler = DIFFUSERS[family](schedule, order)
    path = drive(sampler, oracles.exact_denoiser(mixture, schedule), z, ts)
    np.testing.assert_allclose(path[-1], data[f"{case}/result"], rtol=0, atol=5e-4)
    np.testing.assert_allclose(path[:-1], data[f"{case}/trace"], rtol=0, atol=1e-3)


# --- order of convergence ----------------------------------------------------------------

EDM = SCHEDULES["edm"]
HALF = 0.8  # flows are measured between lambda = -0.8 and 0.8
MEAN, STD = np.array([0.3, -0.5]), 1.0
GAUSSIAN = oracles.Mixture(np.full(3, 1 / 3), np.tile(MEAN, (3, 1)), np.full(3, STD))
MIXTURES = {"gaussian": GAUSSIAN, "mixture": oracles.TWO_MOONS}


def even(n):
    """n steps of the EDM schedule even in lambda."""
    return jnp.exp(jnp.linspace(HALF, -HALF, n + 1))


def smooth(n):
    """n steps of the EDM schedule, smooth in lambda and short at both ends.

    So that the lower orders there (the warm-up of the multistep solvers, the last step of
    UniPC) do not hide a formula's own.
    """
    u = jnp.linspace(0, 1, n + 1)
    return jnp.exp(HALF * (1 - 2 * u**3 * (6 * u**2 - 15 * u + 10)))


def solution(make):
    """(mixture, x at ts[0], ts) -> x at all of ts."""
    return jax.jit(
        lambda mixture, x, ts: scan(make(EDM), oracles.exact_denoiser(mixture, EDM), x, ts)
    )


@pytest.fixture(scope="module")
def flows():
    """A start, and for each mixture its end by the exact flow or by many steps of rk4."""
    with jax.enable_x64(True):
        x, ts = jnp.asarray(np.random.default_rng(0).standard_normal((16, 2))), smooth(600)
        x = x * ts[0]
        exact = oracles.gaussian_flow(MEAN, STD, EDM, x, ts[0], ts[-1])
        fine = solution(samplers.rk4)(oracles.TWO_MOONS, x, ts)[-1]
        return x, {"gaussian": np.asarray(exact), "mixture": np.asarray(fine)}


@pytest.mark.parametrize("name", NAMES)
def test_order_of_convergence(x64, flows, name):
    """On one schedule: that all others give the same solution is the next test.

    The coarse grid goes on beyond the end of the flow, to be of one length with the fine.
    """
    make, order = SOLVERS[name]
    (x, ends), solve = flows, solution(make)
    coarse = jnp.append(smooth(64), smooth(64)[-1] * jnp.exp(-0.1 * jnp.arange(1, 65)))
    for kind, mixture in MIXTURES.items():
        paths = solve(mixture, x, coarse)[64], solve(mixture, x, smooth(128))[128]
        errors = [np.sqrt(np.mean((end - ends[kind]) ** 2)) for end in paths]
        measured = np.log2(errors[0] / errors[1])
        assert abs(measured - order) < 0.25, (kind, measured)


MEASURED = SCHEDULES | {
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "rectified_flow": schedules.rectified_flow(),
    "gvp": schedules.gvp(),
    "laplace": schedules.laplace(),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("on", [name for name in MEASURED if name != "edm"])
@pytest.mark.parametrize("name", NAMES)
def test_order_of_convergence_on_every_schedule(x64, flows, name, on):
    """On the mixture, at the same noise levels, from the same x/alpha."""
    (make, order), schedule, (x, ends) = SOLVERS[name], MEASURED[on], flows
    denoiser, errors = oracles.exact_denoiser(oracles.TWO_MOONS, schedule), []
    for n in (64, 128):
        ts = schedule.t_from_logsnr(-2 * jnp.log(smooth(n)))
        end = drive(make(schedule), denoiser, schedule.alpha(ts[0]) * x, ts)[-1]
        end = end / schedule.alpha(ts[-1])
        errors.append(np.sqrt(np.mean((end - ends["mixture"]) ** 2)))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.25


def curved(schedule):
    """A cheap denoiser that must not be asked about clean data."""

    def denoiser(x, t, cond):
        t = jnp.asarray(t)
        y = x / jnp.hypot(schedule.alpha(t), schedule.sigma(t))
        return Prediction(jnp.where(schedule.sigma(t) == 0, jnp.nan, jnp.tanh(2 * y)))

    return denoiser


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", KINDS)
def test_every_schedule_gives_the_same_solution(name):
    """In x/alpha against sigma/alpha; the step to clean data gives x0_hat (lms aside).

    In float32, with NaNs refused in every intermediate value.
    """
    half = jnp.asarray([-4.3, -2.0, 0.0, 1.5, jnp.inf])
    z = jax.random.normal(jax.random.key(1), (3, 2))
    ends = []
    for schedule in SCHEDULES.values():
        ts = schedule.t_from_logsnr(2 * half)
        denoiser = curved(schedule)
        path = drive(SOLVERS[name][0](schedule), denoiser, schedule.sigma(ts[0]) * z, ts)
        if not name.startswith("lms"):
            x0 = denoiser(jnp.asarray(path[-2]), ts[-2], None).x0
            np.testing.assert_allclose(path[-1], x0, rtol=5e-7)
        ends.append(path[-2] / schedule.alpha(ts[-2]))
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], rtol=1e-3, atol=1e-4)


def test_pseudo_linear_multistep_is_adams_bashforth_on_equal_steps():
    """The variable-step weights of lms, derived otherwise, are plms' fixed ones there."""
    x, ts = jnp.zeros((1, 1)), jnp.linspace(10.0, 2.0, 9)
    table = [jax.jit(make(EDM).init)(x, ts).weights for make in (samplers.lms, samplers.plms)]
    np.testing.assert_allclose(*table, rtol=1e-4, atol=1e-5)


# --- the ends of the grid ----------------------------------------------------------------


@pytest.fixture(scope="module")
def from_zero():
    """A start at alpha 0, a grid, the exact end, and Euler's path."""
    schedule = oracles.ZERO_TERMINAL_SNR
    x = jax.random.normal(jax.random.key(1), (4, 2))
    ts = grids.trailing(schedule, 12)
    exact = oracles.gaussian_flow(MEAN, STD, schedule, x, ts[0], ts[-1])
    denoiser = oracles.exact_denoiser(GAUSSIAN, schedule)
    return x, ts, exact, drive(samplers.euler(schedule), denoiser, x, ts)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", KINDS)
def test_from_zero_terminal_snr(from_zero, name):
    """From alpha 0 a first-order step; the whole is finite and about as good as Euler."""
    (x, ts, exact, euler), schedule = from_zero, oracles.ZERO_TERMINAL_SNR
    denoiser = oracles.exact_denoiser(GAUSSIAN, schedule)
    path = drive(SOLVERS[name][0](schedule), denoiser, x, ts)
    np.testing.assert_allclose(path[1], euler[1], rtol=1e-5)
    assert np.abs(path[-1] - exact).max() < 1.5 * np.abs(euler[-1] - exact).max()


@pytest.mark.parametrize("name", KINDS)
def test_a_grid_of_one_step(name):
    schedule = SCHEDULES["betas"]
    x = jax.random.normal(jax.random.key(1), (4, 2))
    ts = grids.trailing(schedule, 1)
    path = drive(SOLVERS[name][0](schedule), curved(schedule), x, ts)
    np.testing.assert_allclose(path[-1], jnp.tanh(2 * x), rtol=1e-6)


def test_a_reversed_grid_undoes_the_solver(x64, flows):
    denoiser = oracles.exact_denoiser(oracles.TWO_MOONS, EDM)
    sampler, ts, (x, _) = samplers.unipc(EDM), smooth(32), flows
    noise = jax.jit(lambda x: samplers.encode(denoiser, sampler, x, ts))(x)
    np.testing.assert_allclose(drive(sampler, denoiser, noise, ts)[-1], x, atol=1e-2)


# --- options -----------------------------------------------------------------------------

FIRST_ORDER = [
    lambda s: samplers.lms(s, 1),
    lambda s: samplers.deis(s, 1),
    lambda s: samplers.dpm_solver(s, 1),
    lambda s: samplers.dpmpp_multistep(s, 1),
]


def test_the_first_order_of_every_family_is_euler():
    schedule = SCHEDULES["vp_cosine"]
    x, ts = jax.random.normal(jax.random.key(1), (4, 2)), jnp.linspace(schedule.t_max, 0, 6)
    euler = drive(samplers.euler(schedule), curved(schedule), x, ts)
    for make in FIRST_ORDER:
        path = drive(make(schedule), curved(schedule), x, ts)
        np.testing.assert_allclose(path, euler, rtol=1e-6)


def test_unipc_can_correct_its_result(x64, flows):
    """The last step, of order 1, is the largest error on a grid that stops short of clean."""
    (x, ends), ts = flows, even(12)
    denoiser = oracles.exact_denoiser(GAUSSIAN, EDM)
    errors = [
        np.abs(
            drive(samplers.unipc(EDM, corrector_last=last), denoiser, x, ts)[-1] - ends["gaussian"]
        )
        for last in (False, True)
    ]
    assert errors[1].max() < 0.2 * errors[0].max()


BAD = {
    "lms": (lambda s: samplers.lms(s, 5), "order must be a whole number from 1 to 4; got 5"),
    "deis": (lambda s: samplers.deis(s, 0), "order must be a whole number from 1 to 3; got 0"),
    "dpm_solver": (lambda s: samplers.dpm_solver(s, 4), "from 1 to 3; got 4"),
    "dpmpp_multistep": (lambda s: samplers.dpmpp_multistep(s, 4), "from 1 to 3; got 4"),
    "unipc": (lambda s: samplers.unipc(s, 4), "from 1 to 3; got 4"),
    "variant": (lambda s: samplers.unipc(s, variant="bh3"), "bh1, bh2; got 'bh3'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_explained(case):
    make, message = BAD[case]
    with pytest.raises(InputError, match=message):
        make(schedules.edm())


# --- AMED --------------------------------------------------------------------------------


def test_amed_is_dpm_2_until_it_is_fitted():
    x, ts = jax.random.normal(jax.random.key(1), (4, 2)), jnp.linspace(1, 0, 6)
    paths = [drive(make(EDM), curved(EDM), x, ts) for make in (samplers.dpm_2, samplers.amed)]
    np.testing.assert_allclose(*paths, rtol=1e-5)


@pytest.mark.exhaustive
def test_amed_learns_from_a_fine_trajectory():
    """By gradients through the scan; the fitted solver is better on noise it has not seen."""
    denoiser = oracles.exact_denoiser(oracles.TWO_MOONS, EDM)
    fine = grids.karras(EDM, 13, sigma_min=0.02, sigma_max=20.0)
    ts = jnp.append(fine[:-1:4], 0.0)
    z = jax.random.normal(jax.random.key(1), (2, 64, 2))
    path = scan(samplers.heun(EDM), denoiser, 20.0 * z.reshape(128, 2), fine)
    path = jnp.moveaxis(jnp.append(path[:-1:4], path[-1:], axis=0), 0, 1)
    seen, unseen = {"x": path[:64]}, {"x": path[64:]}

    loss = samplers.amed_loss(EDM, denoiser, ts)
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    optimizer = optax.adam(0.05)
    start = params = Amed(jnp.zeros(4), jnp.ones(4))
    state = optimizer.init(params)
    for _ in range(60):
        updates, state = optimizer.update(gradient(params, KEY, seen)[1], state)
        params = optax.apply_updates(params, updates)
    before, after = (gradient(params, KEY, unseen)[0][0] for params in (start, params))
    assert after < 0.5 * before


def test_amed_refuses_parameters_of_another_grid():
    sampler = samplers.amed(schedules.edm(), Amed(jnp.zeros(3), 1.0))
    with pytest.raises(InputError, match="each of the 5 steps of the grid; got shape \\(3,\\)"):
        sampler.init(jnp.zeros((1, 1)), jnp.linspace(1.0, 0.0, 6))


@pytest.mark.parametrize("name", ["lms_4", "dpmpp_3m", "deis_3", "unipc_3"])
def test_clustered_times_do_not_multiply_rounding(name):
    """N(0.7, 0.4^2): x0 = 0.7 + 0.4 (x - 0.7)/sqrt(0.4^2 + sigma^2), on times crowded at t_max."""
    schedule = schedules.ve()

    def denoiser(x, t, cond):
        noise = schedule.sigma(t) ** 2
        return Prediction((0.16 * x + 0.7 * noise) / (0.16 + noise))

    sigma = schedule.sigma(schedule.t_max)
    x = sigma * jnp.linspace(-2.0, 2.0, 5)[:, None]
    ts = grids.beta_quantiles(schedule, 1000)
    out = scan(SOLVERS[name][0](schedule), denoiser, x, ts)[-1]
    expected = 0.7 + 0.4 * (x - 0.7) / jnp.sqrt(0.16 + sigma**2)
    np.testing.assert_allclose(out, expected, atol=2e-3)


def test_a_step_of_one_rounding_is_finite():
    """The time at a third of the step is rounded to its first, so that h is 0 between them."""
    schedule = SCHEDULES["betas"]
    t = np.float32(0.7269593)
    ts = jnp.asarray([1.0, np.nextafter(t, np.float32(1)), t])
    denoiser = oracles.exact_denoiser(oracles.TWO_MOONS, schedule)
    run = jax.jit(
        lambda ts: samplers.sample(
            KEY, denoiser, samplers.dpm_solver(schedule), jnp.ones((3, 2)), ts
        )
    )
    assert np.all(np.isfinite(run(ts)))
