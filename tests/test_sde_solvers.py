"""Stochastic solvers against k-diffusion, exact Gaussians, mixtures and each other."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax
from scipy.integrate import quad

from diffjax import diffusion, grids, samplers, schedules
from diffjax.errors import InputError
from diffjax.samplers.exponential import moments
from diffjax.samplers.info import sampler_info
from diffjax.types import Prediction

GOLDEN = np.load("tests/golden/k_sigma_space.npz")
MEAN, STD = 0.7, 0.5
GAUSSIAN = oracles.gaussian([MEAN], STD)

SCHEDULES = {
    "betas": schedules.from_betas(schedules.linear_betas(1000)),
    "vp": schedules.vp_linear(),
    "edm": schedules.edm(0.02, 80.0),
}
ZERO_SNR = schedules.from_betas(
    schedules.rescale_zero_terminal_snr(schedules.linear_betas(1000)),
)


class Row(NamedTuple):
    make: callable
    coarse: float  # largest exact Wasserstein-2 error in 16 Karras steps
    fine: float  # and in 64


ROWS = {
    "euler_maruyama": Row(samplers.euler_maruyama, 0.11, 0.02),
    "reverse_diffusion": Row(samplers.reverse_diffusion, 0.21, 0.041),
    "edm_stochastic": Row(
        partial(samplers.edm_stochastic, churn=20.0, noise_min=0.1, noise_scale=1.0), 0.09, 0.01
    ),
    "euler_ancestral": Row(samplers.euler_ancestral, 0.16, 0.05),
    "dpmpp_2s_ancestral": Row(samplers.dpmpp_2s_ancestral, 0.06, 0.006),
    "dpmpp_sde": Row(samplers.dpmpp_sde, 0.12, 0.045),
    "dpmpp_2m_sde": Row(samplers.dpmpp_2m_sde, 0.08, 0.007),
    "dpmpp_2m_sde_heun": Row(partial(samplers.dpmpp_2m_sde, form="heun"), 0.21, 0.012),
    "dpmpp_3m_sde": Row(samplers.dpmpp_3m_sde, 0.22, 0.003),
    "sa_solver": Row(samplers.sa_solver, 0.26, 0.002),
    "sa_solver_2": Row(
        partial(samplers.sa_solver, tau=0.5, predictor_order=2, corrector_order=2), 0.12, 0.008
    ),
    "predictor_corrector": Row(samplers.predictor_corrector, 0.21, 0.035),
    "langevin": Row(partial(samplers.langevin, steps=10), 5.0, 0.08),
    "restart": Row(partial(samplers.restart, noise_min=0.3, noise_max=2.0, steps=12), 0.01, 0.0025),
}
ADAPTIVE = {"adaptive_sde": samplers.adaptive_sde, "adaptive_ode": samplers.adaptive_ode}


def drive(sampler, denoiser, x, ts, noise):
    """The path (n + 1, ...) of a sampler given all its noise (n, draws, *x.shape)."""

    @jax.jit
    def run(x, ts, noise):
        def body(carry, part):
            z, t, s = part
            carry = sampler.step(z, lambda x, t: denoiser(x, t, None), carry[0], t, s, carry[1])
            return carry, carry[0]

        start = (x, sampler.init(x, ts))
        return lax.scan(body, start, (noise, ts[:-1], ts[1:]))[1]

    x, ts = jnp.asarray(x), jnp.asarray(ts)
    return np.concatenate([x[None], run(x, ts, jnp.asarray(noise))])


def exact_result(schedule, sampler, ts, mean=0.0, std=None):
    """Mean and standard deviation of the result on GAUSSIAN data, without sampling.

    From N(mean, std^2) at ts[0], by default the prior.

    The denoiser is affine, hence so is the whole run in (x_T, noise): one row of a batch for
    each of its inputs finds every coefficient.
    """
    n = len(ts) - 1
    inputs = 1 + n * sampler.draws
    unit = np.eye(inputs, inputs + 1)[:, :, None]
    x = mean + unit[0] * (schedule.sigma(ts[0]) if std is None else std)
    noise = unit[1:].reshape(n, sampler.draws, inputs + 1, 1)
    result = drive(sampler, oracles.exact_denoiser(GAUSSIAN, schedule), x, ts, noise)[-1, :, 0]
    return result[-1], np.sqrt(np.sum((result[:-1] - result[-1]) ** 2))


def wasserstein(schedule, sampler, ts):
    mean, std = exact_result(schedule, sampler, ts)
    return np.hypot(mean - MEAN, std - STD)


def sliced_wasserstein(a, b, directions=16):
    """Wasserstein-2 of two sets of points of the plane, averaged over directions."""
    angle = np.arange(directions) * np.pi / directions
    along = np.stack([np.cos(angle), np.sin(angle)])
    levels = (np.arange(len(a)) + 0.5) / len(a)
    difference = np.sort(a @ along, axis=0) - np.quantile(b @ along, levels, axis=0)
    return np.sqrt(np.mean(difference**2))


# --- k-diffusion ------------------------------------------------------------------------

REFERENCE = {
    "euler_ancestral": samplers.euler_ancestral,
    "dpmpp_2s": lambda s: samplers.dpmpp_2s_ancestral(s, 0.0),
    "dpmpp_2s_ancestral": samplers.dpmpp_2s_ancestral,
    "dpmpp_sde": samplers.dpmpp_sde,
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "dpmpp_2m_sde_heun": lambda s: samplers.dpmpp_2m_sde(s, "heun"),
    "dpmpp_3m_sde": samplers.dpmpp_3m_sde,
    "heun_churn": lambda s: samplers.edm_stochastic(s, 4.0, 0.05, 50.0, 1.003),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_golden(x64, name):
    mixture = oracles.Mixture(*(GOLDEN[f"problem/{a}"] for a in ("weights", "means", "stds")))
    schedule = schedules.edm(0.02, 80.0)
    case = {a: GOLDEN[f"{name}-karras-12/{a}"] for a in ("sigmas", "noise", "trace", "result")}
    sampler, x = REFERENCE[name](schedule), GOLDEN["problem/z"] * case["sigmas"][0]
    noise = np.zeros((12 * sampler.draws, *x.shape))
    noise[: len(case["noise"])] = case["noise"]
    noise = noise.reshape(12, sampler.draws, *x.shape)
    path = drive(sampler, oracles.exact_denoiser(mixture, schedule), x, case["sigmas"], noise)
    np.testing.assert_allclose(path[-1], case["result"], rtol=0, atol=1e-9)
    if name != "heun_churn":  # whose trace is of x after the churn
        np.testing.assert_allclose(path[:-1], case["trace"], rtol=0, atol=1e-9)


# --- convergence to the data ------------------------------------------------------------


@pytest.mark.parametrize(
    "on", ["edm", *(pytest.param(on, marks=pytest.mark.exhaustive) for on in ("betas", "vp"))]
)
@pytest.mark.parametrize("name", ROWS)
def test_gaussian_exactly(x64, name, on):
    schedule, row = SCHEDULES[on], ROWS[name]
    error = wasserstein(schedule, row.make(schedule), grids.karras(schedule, 64))
    assert error < row.fine, error


@pytest.mark.exhaustive
@pytest.mark.parametrize(("i", "name"), list(enumerate(ROWS)))
def test_error_shrinks_with_the_grid(x64, i, name):
    schedule, row = SCHEDULES[("betas", "vp")[i % 2]], ROWS[name]
    error = wasserstein(schedule, row.make(schedule), grids.karras(schedule, 16))
    assert row.fine < error < row.coarse, error


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "on"),
    [("euler_maruyama", "edm"), ("dpmpp_2m_sde", "betas"), ("restart", "vp")],
)
def test_mixture(name, on):
    schedule = SCHEDULES[on]
    start, noise, exact = jax.random.split(jax.random.key(3), 3)
    x = diffusion.prior_sample(start, schedule, (500, 2))
    denoiser = oracles.exact_denoiser(oracles.TWO_MOONS, schedule)
    sampler, ts = ROWS[name].make(schedule), grids.karras(schedule, 32)
    x = jax.jit(lambda x: samplers.sample(noise, denoiser, sampler, x, ts))(x)
    wanted = oracles.draw(exact, oracles.TWO_MOONS, 10_000)
    assert sliced_wasserstein(np.asarray(x), np.asarray(wanted)) < 0.15


WEAK = [n for n in ROWS if n not in ("langevin", "predictor_corrector", "restart")]


@pytest.mark.exhaustive
@pytest.mark.parametrize("on", ["edm", "vp"])
@pytest.mark.parametrize("name", WEAK)
def test_weak_order(x64, name, on):
    """Of the standard deviation of Gaussian data, between lambda = -0.8 and 0.8, as the list says.

    The steps are short at both ends, see `smooth` of the ODE solvers.
    """
    schedule, errors = SCHEDULES[on], []
    for n in (64, 128):
        u = jnp.linspace(0, 1, n + 1)
        half = 0.8 * (2 * u**3 * (6 * u**2 - 15 * u + 10) - 1)
        ts = schedule.t_from_logsnr(2 * half)
        sampler = ROWS[name].make(schedule)
        scale = jnp.hypot(schedule.alpha(ts) * STD, schedule.sigma(ts))
        _, std = exact_result(schedule, sampler, ts, schedule.alpha(ts[0]) * MEAN, scale[0])
        errors.append(abs(std - scale[-1]))
    constructor = getattr(samplers, name.removesuffix("_heun").removesuffix("_2"))
    wanted = sampler_info(constructor).order
    assert abs(np.log2(errors[0] / errors[1]) - wanted) < 0.25


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ROWS)
def test_from_zero_snr_to_the_prediction(x64, name):
    denoiser = oracles.exact_denoiser(oracles.TWO_MOONS, ZERO_SNR)
    sampler = ROWS[name].make(ZERO_SNR)
    key, start = jax.random.split(jax.random.key(0))
    noise = jax.random.normal(key, (4, sampler.draws, 5, 2))
    x, ts = jax.random.normal(start, (5, 2)), jnp.array([1.0, 0.6, 0.3, 0.01, 0.0])
    path = drive(sampler, denoiser, x, ts, noise)
    assert np.abs(path).max() < 20
    x0 = jax.jit(denoiser)(jnp.asarray(path[-2]), ts[-2], None).x0
    np.testing.assert_allclose(path[-1], x0, atol=1e-12)


# --- identities -------------------------------------------------------------------------

SAME = {
    "euler_ancestral is euler": (lambda s: samplers.euler_ancestral(s, 0.0), samplers.euler),
    "euler_ancestral is ddim": (
        lambda s: samplers.euler_ancestral(s, 0.6),
        lambda s: samplers.ddim(s, 0.6),
    ),
    "dpmpp_2m_sde is dpmpp_2m": (lambda s: samplers.dpmpp_2m_sde(s, eta=0.0), samplers.dpmpp_2m),
    "edm_stochastic is heun": (lambda s: samplers.edm_stochastic(s, 0.0), samplers.heun),
    "predictor_corrector at snr 0": (
        lambda s: samplers.predictor_corrector(s, samplers.heun(s), 0.0, 2),
        samplers.heun,
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_reductions(x64, name):
    schedule = SCHEDULES["vp"]
    ts = grids.karras(schedule, 8)
    denoiser = oracles.exact_denoiser(oracles.TWO_MOONS, schedule)
    key, start = jax.random.split(jax.random.key(1))
    noise, x = jax.random.normal(key, (8, 3, 5, 2)), jax.random.normal(start, (5, 2))
    one, other = (
        drive(sampler, denoiser, x, ts, noise[:, : sampler.draws])
        for sampler in (make(schedule) for make in SAME[name])
    )
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_arguments_may_be_traced():
    schedule, ts = SCHEDULES["vp"], jnp.array([1.0, 0.5, 0.0])
    denoiser = oracles.exact_denoiser(GAUSSIAN, schedule)

    def run(a, x):
        made = [
            samplers.euler_ancestral(schedule, a),
            samplers.dpmpp_2s_ancestral(schedule, a),
            samplers.dpmpp_sde(schedule, a, a),
            samplers.dpmpp_2m_sde(schedule, eta=a),
            samplers.dpmpp_3m_sde(schedule, a),
            samplers.sa_solver(schedule, a),
            samplers.edm_stochastic(schedule, a, a, 2 * a, a),
            samplers.langevin(schedule, a, 2),
            samplers.restart(schedule, samplers.euler(schedule), [(0.9 * a, a, 2, 2)]),
        ]
        return [samplers.sample(jax.random.key(0), denoiser, m, x, ts) for m in made]

    x = jnp.ones((2, 1))
    assert all(y.shape == x.shape for y in jax.eval_shape(run, 0.5, x))


@pytest.mark.parametrize(
    "make",
    [
        lambda s: samplers.euler_ancestral(s, -1.0),
        lambda s: samplers.dpmpp_2s_ancestral(s, -1.0),
        lambda s: samplers.dpmpp_sde(s, -1.0),
        lambda s: samplers.dpmpp_sde(s, r=0.0),
        lambda s: samplers.dpmpp_2m_sde(s, "trapezoid"),
        lambda s: samplers.dpmpp_2m_sde(s, eta=-1.0),
        lambda s: samplers.dpmpp_3m_sde(s, -1.0),
        lambda s: samplers.sa_solver(s, -1.0),
        lambda s: samplers.sa_solver(s, 1.0, 0),
        lambda s: samplers.sa_solver(s, 1.0, 3, 5),
        lambda s: samplers.edm_stochastic(s, -1.0),
        lambda s: samplers.edm_stochastic(s, 1.0, 2.0, 1.0),
        lambda s: samplers.langevin(s, -1.0),
        lambda s: samplers.langevin(s, 0.2, 0),
        lambda s: samplers.predictor_corrector(s, samplers.euler(s), 0.1, 0),
        lambda s: samplers.restart(s, samplers.heun(s), []),
        lambda s: samplers.restart(s, samplers.heun(s), [(0.5, 0.1, 2, 2)]),
        lambda s: samplers.restart(s, samplers.heun(s), [(0.1, 0.5, 0, 2)]),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(InputError, match=r"must|needs|zero SNR"):
        make(SCHEDULES["vp"])


@pytest.mark.parametrize("inner", [samplers.dpmpp_2m, samplers.unipc, samplers.lms])
def test_restart_refuses_a_solver_that_keeps_weights_of_its_grid(inner):
    schedule = SCHEDULES["edm"]
    with pytest.raises(InputError, match="can change grids"):
        samplers.restart(schedule, inner).init(jnp.ones((1, 1)), grids.karras(schedule, 4))


# --- the pieces -------------------------------------------------------------------------


def test_drift_and_diffusion(x64):
    t = jnp.array([0.1, 0.5, 1.0])
    beta = 0.1 + 19.9 * t
    vp, edm = SCHEDULES["vp"], SCHEDULES["edm"]
    np.testing.assert_allclose(diffusion.drift(vp, t), -beta / 2, rtol=1e-12)
    np.testing.assert_allclose(diffusion.diffusion_squared(vp, t), beta, rtol=1e-12)
    np.testing.assert_allclose(diffusion.drift(edm, t), 0, atol=0)
    np.testing.assert_allclose(diffusion.diffusion_squared(edm, t), 2 * t)
    assert diffusion.drift(ZERO_SNR, 1.0) == -np.inf


@pytest.mark.parametrize("on", SCHEDULES)
def test_sde_coefficients_are_the_short_transition(x64, on):
    schedule, t, width = SCHEDULES[on], 0.50005, 1e-6
    scale, variance = diffusion.transition(schedule, t + width, t)
    assert np.isclose((scale - 1) / width, diffusion.drift(schedule, t), rtol=1e-4, atol=1e-9)
    assert np.isclose(variance / width, diffusion.diffusion_squared(schedule, t), rtol=1e-4)


@pytest.mark.parametrize("on", SCHEDULES)
def test_velocity(x64, on):
    schedule, t, width = SCHEDULES[on], 0.50005, 1e-6
    x0, eps = jnp.array([[0.3, -1.0]]), jnp.array([[0.5, 2.0]])
    x, ahead = (diffusion.q_sample(schedule, x0, t + d, eps) for d in (0.0, width))
    velocity = diffusion.velocity_from_x0(schedule, x, t, x0)
    np.testing.assert_allclose(velocity, (ahead - x) / width, rtol=1e-4)


@pytest.mark.parametrize("z", [1e-3, 0.3, 1.0, 7.0, 200.0])
def test_moments(x64, z):
    for p, found in enumerate(moments(jnp.asarray(z), 4)):
        near_one = max(0.0, 1 - 40 / z)
        wanted, _ = quad(lambda v: z * np.exp(-z * (1 - v)) * v**p, near_one, 1, epsabs=1e-14)  # noqa: B023
        assert np.isclose(found, wanted, rtol=1e-10)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("predictor", "corrector", "order"), [(1, 1, 1), (1, 2, 2), (3, 3, 3)])
def test_sa_solver_order(x64, predictor, corrector, order):
    schedule = SCHEDULES["edm"]
    sampler = samplers.sa_solver(schedule, 0.0, predictor, corrector)
    x, errors = jnp.array([[2.0], [-1.0]]), []
    for n in (64, 128):
        ts = jnp.geomspace(2.0, 0.2, n + 1)
        denoiser = oracles.exact_denoiser(GAUSSIAN, schedule)
        found = drive(sampler, denoiser, x, ts, np.zeros((n, 1, 2, 1)))[-1]
        wanted = oracles.gaussian_flow([MEAN], STD, schedule, x, 2.0, 0.2)
        errors.append(np.abs(found - wanted).max())
    assert np.log2(errors[0] / errors[1]) > order - 0.3


# --- Brownian paths ---------------------------------------------------------------------


def test_brownian_is_one_path():
    ends = jnp.array([0.0, 0.13, 0.5, 0.8, 1.0])
    keys = jax.random.split(jax.random.key(6), 10_000)
    paths = jax.jit(jax.vmap(jax.vmap(samplers.brownian, (None, 0)), (0, None)))
    w = np.asarray(paths(keys, ends))
    np.testing.assert_array_equal(w[:, 0], 0)
    np.testing.assert_allclose(np.cov(w.T), np.minimum.outer(ends, ends), atol=0.05)
    part = jax.jit(samplers.brownian_increment)(keys[0], 0.13, 0.8)
    assert np.isclose(part, w[0, 3] - w[0, 1], atol=1e-6)


@pytest.mark.exhaustive
def test_finer_grids_refine_the_sample():
    schedule = SCHEDULES["vp"]
    x = diffusion.prior_sample(jax.random.key(7), schedule, (32, 2))
    denoiser = oracles.exact_denoiser(oracles.gaussian([MEAN, -0.2], STD), schedule)
    sampler = samplers.euler_maruyama(schedule)

    @jax.jit
    def run(ts):
        key = jax.random.key(9)
        return samplers.sample_brownian(key, denoiser, sampler, schedule, x, ts)

    def padded(n):  # with steps of no length, for one compilation
        ts = grids.karras(schedule, n)
        return jnp.concatenate([jnp.full(128 - n, ts[0]), ts])

    found = [run(padded(n)) for n in (8, 32, 128)]
    errors = [np.sqrt(np.mean((a - found[-1]) ** 2)) for a in found[:-1]]
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.15


def test_brownian_sample_depends_on_key_and_index_alone():
    schedule, ts = SCHEDULES["vp"], jnp.array([1.0, 0.5, 0.1])
    denoiser = oracles.exact_denoiser(oracles.TWO_MOONS, schedule)
    x = jax.random.normal(jax.random.key(0), (4, 2))

    @jax.jit
    def run(x, first):
        key, sampler = jax.random.key(1), samplers.dpmpp_sde(schedule)
        return samplers.sample_brownian(key, denoiser, sampler, schedule, x, ts, first=first)

    np.testing.assert_allclose(run(x, 0)[1:], run(jnp.roll(x, -1, 0), 1)[:-1], atol=1e-5)


# --- adaptive steps ---------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("schedule", [SCHEDULES["edm"], ZERO_SNR])
def test_adaptive(schedule):
    n, wanted = 500, oracles.draw(jax.random.key(8), oracles.TWO_MOONS, 10_000)
    x = diffusion.prior_sample(jax.random.key(9), schedule, (n, 2))
    denoiser = oracles.exact_denoiser(oracles.TWO_MOONS, schedule)

    @jax.jit
    def run(x, relative, first):
        key = jax.random.key(10)
        sampler = samplers.adaptive_sde(schedule, relative, relative / 2)
        return sampler(key, denoiser, x, first=first)

    (found, many), (loose, few) = run(x, 0.05, 0), run(x, 0.5, 0)
    assert 20 < few < many < 1000
    assert sliced_wasserstein(np.asarray(found), np.asarray(wanted)) < 0.12
    shifted, _ = run(jnp.roll(x, -1, 0), 0.5, 1)
    np.testing.assert_allclose(loose[1:], shifted[:-1], atol=1e-3)


@pytest.mark.parametrize("bad", [{"relative": -1.0}, {"absolute": -1.0}, {"max_steps": 0}])
def test_adaptive_bad_arguments(bad):
    with pytest.raises(InputError, match="got"):
        samplers.adaptive_sde(SCHEDULES["vp"], **bad)


def test_adaptive_says_when_its_attempts_are_spent():
    schedule = SCHEDULES["vp"]
    x = jax.random.normal(jax.random.key(0), (2, 1))

    def denoiser(x, t, cond):
        return Prediction(jnp.zeros_like(x))

    def run():
        samplers.adaptive_sde(schedule, max_steps=3)(jax.random.key(1), denoiser, x)
        jax.effects_barrier()

    with pytest.warns(RuntimeWarning, match="max_steps = 3"):
        run()
