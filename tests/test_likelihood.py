"""The probability flow's likelihood against closed forms, and what surrounds it."""

import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import (
    SCHEDULES,
    TWO_MOONS,
    ZERO_TERMINAL_SNR,
    draw,
    exact_denoiser,
    gaussian,
    gaussian_flow,
    log_density,
)
from scipy import stats

from diffjax import diffusion, grids, likelihood, samplers, schedules
from diffjax.errors import InputError
from diffjax.types import Prediction

pytestmark = pytest.mark.exhaustive

MEAN, STD = [0.4, -0.2, 0.1], 0.5


# So much noise that the prior, which knows nothing of the data's mean, is the true marginal.
WIDE = {"edm": schedules.edm(0.002, 2e4), "vp_linear": schedules.vp_linear(beta_max=50.0)}


HEUN = {"step": likelihood.heun_step}  # compiles in half the time


def noisy_grid(schedule, n):
    """A grid without its clean end."""
    return grids.karras(schedule, n + 1)[:-1]


def run(denoiser, schedule, x, ts, seed=0, **options):
    """A jitted `ode_log_density`."""
    call = partial(likelihood.ode_log_density, **options)
    key = jax.random.key(seed)
    return jax.jit(lambda key, x, ts: call(key, denoiser, schedule, x, ts))(key, x, ts)


def at_t_min(mixture, schedule, x):
    """The closed-form log-density of the noised data at t_min."""
    t = jnp.asarray(schedule.t_min)
    return log_density(mixture, x, schedule.alpha(t), schedule.sigma(t))


def bits(nats, x):
    return np.asarray(nats) / (x.shape[1] * np.log(2))


# --- the flow ---------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    [
        name if name in WIDE else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in SCHEDULES
    ],
)
def test_gaussian(name):
    """The latent is that of the exact flow, and the density differs by the prior's alone."""
    schedule, mixture = SCHEDULES[name], gaussian(MEAN, STD)
    x = draw(jax.random.key(1), mixture, 8)
    ts = noisy_grid(schedule, 100)
    density = run(exact_denoiser(mixture, schedule), schedule, x, ts, probes=likelihood.exact)
    latent = gaussian_flow(MEAN, STD, schedule, x, ts[-1], ts[0])
    np.testing.assert_allclose(density.latent, latent, rtol=1e-5, atol=1e-6)
    alpha, sigma = schedule.alpha(ts[0]), schedule.sigma(ts[0])
    assumed = stats.norm.logpdf(latent, 0, sigma).sum(1)
    true = log_density(mixture, latent, alpha, sigma)
    expected = at_t_min(mixture, schedule, x) + assumed - true
    np.testing.assert_allclose(bits(density.log_density - expected, x), 0, atol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("step", "n"), [(likelihood.rk4_step, 200), (likelihood.heun_step, 1000)])
@pytest.mark.parametrize("name", WIDE)
def test_mixture(name, step, n):
    schedule = WIDE[name]
    x = draw(jax.random.key(1), TWO_MOONS, 16)
    denoiser, ts = exact_denoiser(TWO_MOONS, schedule), noisy_grid(schedule, n)
    density = run(denoiser, schedule, x, ts, probes=likelihood.exact, step=step)
    gap = bits(density.log_density - at_t_min(TWO_MOONS, schedule, x), x)
    assert np.abs(gap).max() < 1e-3


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("step", "order"), [(likelihood.rk4_step, 4), (likelihood.heun_step, 2)])
def test_order(step, order):
    schedule = SCHEDULES["vp_linear"]
    x = draw(jax.random.key(1), TWO_MOONS, 8)
    denoiser = exact_denoiser(TWO_MOONS, schedule)

    def value(n, step):
        ts = jnp.linspace(0.9, 0.1, n + 1)
        return run(denoiser, schedule, x, ts, probes=likelihood.exact, step=step).log_density

    fine = value(600, likelihood.rk4_step)
    errors = [float(jnp.abs(value(n, step) - fine).mean()) for n in (40, 80)]
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.4


@pytest.mark.usefixtures("x64")
def test_density_of_any_model_integrates_to_one():
    """Change of variables holds for a denoiser that is nobody's posterior mean."""
    schedule = SCHEDULES["vp_linear"]

    def denoiser(x, t, cond):
        return Prediction(0.8 * jnp.tanh(2 * x - 0.3) * schedule.alpha(t))

    x = jnp.linspace(-4, 4, 2001)[:, None]
    ts = noisy_grid(schedule, 60)
    density = run(denoiser, schedule, x, ts, probes=likelihood.exact)
    total = np.trapezoid(np.exp(density.log_density), x[:, 0])
    np.testing.assert_allclose(total, 1, atol=2e-3)
    assert np.all(np.diff(density.latent[:, 0]) > 0)


@pytest.mark.parametrize("family", [likelihood.rademacher, likelihood.gaussian])
def test_hutchinson_is_unbiased(family):
    schedule = SCHEDULES["vp_linear"]
    denoiser, ts = exact_denoiser(TWO_MOONS, schedule), noisy_grid(schedule, 30)
    x = jnp.tile(jnp.asarray([[0.3, 0.2]]), (1024, 1))
    exact = run(denoiser, schedule, x[:1], ts, probes=likelihood.exact, **HEUN).log_density[0]
    few, many = (
        np.asarray(run(denoiser, schedule, x, ts, probes=family(m), **HEUN).log_density, float)
        for m in (1, 8)
    )
    for values in (few, many):
        assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(values))
    assert 5 < few.var() / many.var() < 13


def test_default_probes_are_random_signs_by_index():
    schedule = SCHEDULES["edm"]
    denoiser, ts = exact_denoiser(TWO_MOONS, schedule), noisy_grid(schedule, 10)
    x = draw(jax.random.key(1), TWO_MOONS, 6)
    whole = run(denoiser, schedule, x, ts, **HEUN).log_density
    signs = likelihood.rademacher(1)
    part = run(denoiser, schedule, x[:2], ts, probes=signs, **HEUN).log_density
    np.testing.assert_allclose(part, whole[:2], rtol=1e-5)
    other = run(denoiser, schedule, x, ts, seed=5, **HEUN).log_density
    assert not np.allclose(other, whole, atol=1e-3)


def test_images_and_conditions():
    """(B, H, W, C) and a condition pass through, and give what flat data give."""
    schedule = WIDE["vp_linear"]
    flat = gaussian([0.1] * 12, 0.3)
    x = draw(jax.random.key(1), flat, 4)
    shifts = jnp.asarray([0, 1, 0, 1])

    def shifted(x, t, cond):
        move = (schedule.alpha(t) * cond["label"]).reshape(-1, *[1] * (x.ndim - 1))
        x0 = exact_denoiser(flat, schedule)(x - move, t, None).x0
        return Prediction(x0 + cond["label"].reshape(move.shape))

    ts, cond = noisy_grid(schedule, 50), {"label": shifts}
    images = x.reshape(4, 2, 2, 3) + shifts[:, None, None, None]
    density = jax.jit(
        lambda key, x, cond: likelihood.ode_log_density(key, shifted, schedule, x, ts, cond)
    )(jax.random.key(0), images, cond)
    assert density.latent.shape == images.shape
    expected = at_t_min(flat, schedule, x)  # an isotropic Jacobian: Hutchinson is exact
    np.testing.assert_allclose(bits(density.log_density - expected, x), 0, atol=2e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", WIDE)
def test_adaptive_agrees(name):
    schedule = WIDE[name]
    x = draw(jax.random.key(1), TWO_MOONS, 16)
    denoiser = exact_denoiser(TWO_MOONS, schedule)
    density, calls = jax.jit(
        lambda x: likelihood.adaptive_log_density(
            jax.random.key(0), denoiser, schedule, x, probes=likelihood.exact
        )
    )(x)
    assert 30 < calls < 400
    gap = bits(density.log_density - at_t_min(TWO_MOONS, schedule, x), x)
    assert np.abs(gap).max() < 1e-3


# --- dequantisation and data sets -------------------------------------------------------


D, N = 4, 256


@cache
def eight_bit():
    """Gaussian data on the 8-bit grid, and their true -log2 P per dimension."""
    x = 0.1 + 0.25 * np.random.default_rng(0).standard_normal((N, D))
    x = np.clip(np.round((x + 1) * 127.5), 0, 255) / 127.5 - 1
    low, high = (stats.norm.cdf(edge, 0.1, 0.25) for edge in (x - 1 / 255, x + 1 / 255))
    return jnp.asarray(x, jnp.float32), -np.log2(high - low).mean(1)


def test_uniform_dequantization():
    x8, _ = eight_bit()
    x, log_q = likelihood.uniform_dequantization(jax.random.key(0), x8)
    noise = np.asarray(x - x8) * 255
    assert np.abs(noise).max() <= 1 + 1e-4
    assert stats.kstest(noise.ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    np.testing.assert_allclose(log_q, D * np.log(255 / 2), rtol=1e-6)
    whole = likelihood.uniform_dequantization(jax.random.key(0), x8[:3])[0]
    np.testing.assert_array_equal(whole, x[:3])


def logit_noise(x8):
    """A dequantisation model that depends on the data."""
    return 0.5 * x8, jnp.full_like(x8, 0.3) - 0.2 * x8


def test_variational_dequantization():
    """E[1/q] is the volume of the bin, and the noise has the density that it says."""
    x8 = jnp.full((20_000, 1), 0.2, jnp.float32)
    x, log_q = likelihood.variational_dequantization(logit_noise)(jax.random.key(0), x8)
    u = (np.asarray(x - x8, float)[:, 0] * 255 + 1) / 2
    assert np.all((u > 0) & (u < 1))
    volumes = np.exp(-np.asarray(log_q, float)) * 255 / 2
    assert abs(volumes.mean() - 1) < 5 * volumes.std() / np.sqrt(len(volumes))
    mean, log_scale = (float(value[0, 0]) for value in logit_noise(x8))
    logit = np.log(u / (1 - u))
    assert stats.kstest(logit, stats.norm(mean, np.exp(log_scale)).cdf).pvalue > 1e-3
    density = stats.norm.logpdf(logit, mean, np.exp(log_scale)) - np.log(u * (1 - u))
    np.testing.assert_allclose(log_q, density + np.log(255 / 2), atol=2e-2)


@cache
def estimates():
    """Bits/dim of the 8-bit data, by each estimate, under the exact denoiser."""
    schedule = SCHEDULES["linear"]
    denoiser = exact_denoiser(gaussian([0.1] * D, 0.25), schedule)
    ts = noisy_grid(schedule, 150)
    dequantize = likelihood.variational_dequantization(logit_noise)
    made = {
        "ode": likelihood.ode_bits_per_dim(denoiser, schedule, ts, **HEUN),
        "variational": likelihood.ode_bits_per_dim(denoiser, schedule, ts, dequantize, **HEUN),
        "bound": likelihood.bound_bits_per_dim(
            denoiser, schedule, grids.trailing(schedule, 250, 1000)
        ),
    }
    return {name: jax.jit(estimate) for name, estimate in made.items()}


def test_estimates_are_in_order():
    """True -log2 P <= the probability flow's <= the variational bound, up to standard errors."""
    x8, true = eight_bit()
    found = {
        name: np.asarray(estimate(jax.random.key(0), x8), float)
        for name, estimate in estimates().items()
    }

    def gap(a, b):
        """Mean and standard error of the difference."""
        return (a - b).mean(), (a - b).std() / np.sqrt(N)

    # 8 bits on a Gaussian of 32 bins: uniform noise costs next to nothing. The model is the
    # data with noise of sigma(t_min) = 0.01, which is not in `true`.
    mean, error = gap(found["ode"], true)
    assert abs(mean) < 4 * error + 3e-3
    for name in ("variational", "bound"):
        mean, error = gap(found[name], found["ode"])
        assert mean > -error
    assert gap(found["bound"], true)[0] > 0


def test_evaluation_over_batches():
    x8, true = eight_bit()
    batches = [{"x": x8[i : i + 100]} for i in range(0, N, 100)]
    result = likelihood.evaluate_bits_per_dim(
        jax.random.key(0), estimates()["ode"], batches, progress=False
    )
    assert result.count == N
    assert abs(result.mean - true.mean()) < 0.01
    np.testing.assert_allclose(result.standard_error, true.std(ddof=1) / np.sqrt(N), rtol=0.1)


def test_evaluation_passes_conditions_and_keys(capsys):
    seen = []

    def estimate(key, x, cond):
        seen.append((int(jax.random.bits(key)), cond["label"].tolist()))
        return x[:, 0]

    batches = ({"x": jnp.full((2, 1), value), "label": jnp.asarray([1, 2])} for value in (1.0, 3.0))
    result = likelihood.evaluate_bits_per_dim(jax.random.key(0), estimate, batches)
    assert result[:1] + result[2:] == (2.0, 4)
    np.testing.assert_allclose(result.standard_error, np.sqrt(4 / 3) / 2)
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] == [1, 2]
    assert "mean=2.0000" in capsys.readouterr().err


# --- adaptive sampling ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["edm", pytest.param("cosine", marks=pytest.mark.exhaustive), "zero terminal SNR"]
)
def test_adaptive_ode(name):
    """The fine solution, with the denoiser calls that it says."""
    schedule = SCHEDULES.get(name, ZERO_TERMINAL_SNR)
    exact, made = exact_denoiser(TWO_MOONS, schedule), []

    def denoiser(x, t, cond):
        jax.debug.callback(lambda: made.append(None))
        return exact(x, t, cond)

    x = diffusion.prior_sample(jax.random.key(1), schedule, (32, 2))
    result, calls = jax.jit(
        lambda x: samplers.adaptive_ode(schedule)(jax.random.key(0), denoiser, x)
    )(x)
    jax.effects_barrier()
    assert len(made) == calls < 100
    ts = grids.trailing(schedule, 1000) if name not in SCHEDULES else grids.karras(schedule, 300)
    fine = jax.jit(
        lambda x: samplers.sample(jax.random.key(0), exact, samplers.heun(schedule), x, ts)
    )(x)
    np.testing.assert_allclose(result, fine, atol=1e-2)


def test_tolerance_bounds_the_error():
    schedule = SCHEDULES["edm"]
    mixture = gaussian([0.3, -0.1], 0.4)
    denoiser = exact_denoiser(mixture, schedule)
    x = diffusion.prior_sample(jax.random.key(1), schedule, (32, 2))
    exact = gaussian_flow([0.3, -0.1], 0.4, schedule, x, schedule.t_max, 0.0)
    solve = jax.jit(
        lambda x, tol: samplers.adaptive_ode(schedule, tol, tol)(jax.random.key(0), denoiser, x)
    )
    loose, tight = (solve(x, jnp.asarray(tol)) for tol in (1e-2, 1e-5))
    errors = [float(jnp.abs(result - exact).max()) for result, _ in (loose, tight)]
    assert errors[0] < 0.2
    assert errors[1] < 2e-4
    assert loose[1] < tight[1]


# --- interpolation ----------------------------------------------------------------------


def test_interpolate():
    a, b = (jax.random.normal(jax.random.key(i), (3, 4, 50)) for i in (1, 2))
    weights = jnp.asarray([0.0, 0.3, 0.5, 1.0])
    path = samplers.interpolate(a, b, weights)
    assert path.shape == (4, 3, 4, 50)
    np.testing.assert_allclose(path[0], a, atol=1e-5)
    np.testing.assert_allclose(path[-1], b, atol=1e-5)
    # Between equal lengths the length stays, and the angle goes evenly.
    unit = [x / jnp.sqrt(jnp.sum(x**2, axis=(1, 2), keepdims=True)) for x in (a, b)]
    path = np.asarray(samplers.interpolate(*unit, weights)).reshape(4, 3, -1)
    np.testing.assert_allclose(np.linalg.norm(path, axis=2), 1, rtol=1e-5)
    angles = np.arccos(np.sum(path[:1] * path, axis=2).clip(-1, 1))
    np.testing.assert_allclose(
        angles[1:-1], np.asarray(weights)[1:-1, None] * angles[-1], rtol=1e-3
    )


def test_interpolate_between_equals():
    a = jnp.asarray([[1.0, 2.0], [0.0, 0.0]])
    path = samplers.interpolate(a, a, jnp.asarray([0.25, 0.75]))
    np.testing.assert_allclose(path, jnp.stack([a, a]), rtol=1e-6)


def test_interpolate_samples():
    """The ends are the data; halfway is the decoded middle of their codes."""
    schedule = SCHEDULES["vp_linear"]
    denoiser, sampler = exact_denoiser(TWO_MOONS, schedule), samplers.heun(schedule)
    a, b = (draw(jax.random.key(i), TWO_MOONS, 4) for i in (1, 2))
    weights, ts = jnp.linspace(0, 1, 3), noisy_grid(schedule, 100)
    path = jax.jit(lambda a, b: samplers.interpolate_samples(denoiser, sampler, a, b, weights, ts))(
        a, b
    )
    np.testing.assert_allclose(path[0], a, atol=1e-2)
    np.testing.assert_allclose(path[-1], b, atol=1e-2)
    encode = jax.jit(lambda x: samplers.encode(denoiser, sampler, x, ts))
    middle = samplers.interpolate(encode(a), encode(b), weights[1:2])[0]
    decode = jax.jit(lambda x: samplers.sample(jax.random.key(0), denoiser, sampler, x, ts))
    np.testing.assert_allclose(path[1], decode(middle), atol=1e-4)


# --- errors -----------------------------------------------------------------------------


VP = SCHEDULES["vp_linear"]
POINT = jnp.zeros((2, 2))
VP_EXACT = exact_denoiser(TWO_MOONS, VP)


def density_on(schedule, ts):
    return likelihood.ode_log_density(jax.random.key(0), VP_EXACT, schedule, POINT, ts)


def evaluate(batches, estimate=lambda key, x, cond: x[:, 0] / 0):
    return likelihood.evaluate_bits_per_dim(jax.random.key(0), estimate, batches, progress=False)


BAD = {
    "clean end": (lambda: density_on(VP, grids.karras(VP, 5)), "drop the clean end"),
    "increasing": (lambda: density_on(VP, grids.karras(VP, 5)[:-1][::-1]), "decreasing"),
    "one time": (lambda: density_on(VP, jnp.ones(1)), "n >= 1 steps"),
    "zero SNR": (
        lambda: density_on(ZERO_TERMINAL_SNR, grids.trailing(ZERO_TERMINAL_SNR, 5)[:-1]),
        "zero terminal SNR",
    ),
    "adaptive at zero SNR": (
        lambda: likelihood.adaptive_log_density(
            jax.random.key(0), VP_EXACT, ZERO_TERMINAL_SNR, POINT
        ),
        "zero terminal SNR",
    ),
    "no batches": (lambda: evaluate([]), "at least one"),
    "not finite": (
        lambda: evaluate([{"x": POINT}], lambda key, x, cond: np.full(2, np.inf)),
        "not finite",
    ),
    "tolerance": (lambda: samplers.adaptive_ode(VP, relative=-1.0), "relative"),
    "max_steps": (lambda: samplers.adaptive_ode(VP, max_steps=0), "max_steps"),
    "solver": (lambda: samplers.adaptive_ode(VP, solver="rk45"), "Runge-Kutta"),
}


@pytest.mark.parametrize(("call", "says"), BAD.values(), ids=BAD)
def test_bad_input(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_without_diffrax(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(InputError, match=r"diffjax\[ode\]"):
        samplers.adaptive_ode(VP)
