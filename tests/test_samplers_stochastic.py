"""Stochastic samplers against exact marginals, and identities between all samplers.

A new stochastic sampler is one row of STOCHASTIC.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, TWO_MOONS, ZERO_TERMINAL_SNR, drive, exact_denoiser, gaussian
from test_samplers import HALF, MEAN, ODE, STD, Z, between

from diffjax import grids, samplers
from diffjax.parameterization import make_denoiser, predict_x0

STOCHASTIC = {
    "ancestral_small": partial(samplers.ancestral, variance="small"),
    "ancestral_large": partial(samplers.ancestral, variance="large"),
    "ddim_0.3": partial(samplers.ddim, eta=0.3),
    "ddim_1": partial(samplers.ddim, eta=1.0),
}
ALL = {name: make for name, (make, _) in ODE.items()} | STOCHASTIC


def moments(x, mean, variance):
    """How many standard errors the mean and covariance of independent draws are away."""
    n, d = x.shape
    centred = x - mean
    covariance = centred.T @ centred / n
    errors = variance * np.sqrt((1 + np.eye(d)) / n)
    return (
        np.abs(centred.mean(0)) / np.sqrt(variance / n),
        np.abs(covariance - variance * np.eye(d)) / errors,
    )


def marginal(key, schedule, std, t, n=4000):
    """Exact draws (n, 2) of x_t for Gaussian data."""
    scale = jnp.sqrt(schedule.alpha(t) ** 2 * std**2 + schedule.sigma(t) ** 2)
    return schedule.alpha(t) * jnp.asarray(MEAN)[None] + scale * jax.random.normal(key, (n, 2))


# Where a reverse variance is exact, so is every marginal, in steps of any length: beta-tilde
# and every eta for data that is one point, beta for VP data of unit variance.
EXACT = [(name, 0.0) for name in STOCHASTIC if name != "ancestral_large"] + [
    ("ancestral_large", 1.0)
]


@pytest.mark.parametrize(("name", "std"), EXACT)
@pytest.mark.parametrize("schedule", ["linear"])
def test_exact_marginals(schedule, name, std):
    schedule = SCHEDULES[schedule]
    ts = between(schedule, 4)
    denoiser = exact_denoiser(gaussian(MEAN, std), schedule)
    x_key, key = jax.random.split(jax.random.key(1))
    x = marginal(x_key, schedule, std, ts[0])
    x = np.asarray(samplers.sample(key, denoiser, STOCHASTIC[name](schedule), x, ts), float)
    alpha, sigma = float(schedule.alpha(ts[-1])), float(schedule.sigma(ts[-1]))
    mean, covariance = moments(x, alpha * MEAN, alpha**2 * std**2 + sigma**2)
    assert np.all(mean < 4.5), mean
    assert np.all(covariance < 4.5), covariance


@pytest.mark.parametrize("schedule", ["edm"])
@pytest.mark.parametrize("make", STOCHASTIC.values(), ids=STOCHASTIC)
def test_moments(make, schedule):
    """Mean and covariance of the data within 4.5 standard errors and 0.05 for 100 steps."""
    schedule = SCHEDULES[schedule]
    ts = jnp.append(between(schedule, 100), schedule.t_from_logsnr(jnp.inf))
    denoiser = exact_denoiser(gaussian(MEAN, STD), schedule)
    x_key, key = jax.random.split(jax.random.key(2))
    x = marginal(x_key, schedule, STD, ts[0])
    x = samplers.sample(key, denoiser, make(schedule), x, ts)
    # The last step is the mean of x0 given x_s: it keeps this share of the variance.
    r = np.exp(-HALF)
    variance = STD**4 / (STD**2 + r**2)
    errors = 4.5 * np.sqrt(2 / len(x))
    assert np.all(np.abs(x.mean(0) - MEAN) < STD * errors + 0.05)
    covariance = np.cov(x.T)
    assert np.all(np.abs(covariance / variance - np.eye(2)) < errors + 0.05), covariance


@pytest.mark.parametrize("make", STOCHASTIC.values(), ids=STOCHASTIC)
def test_zero_terminal_snr_stochastic(make):
    schedule = ZERO_TERMINAL_SNR
    network = exact_denoiser(gaussian(MEAN, 0.0), schedule)
    denoiser = make_denoiser(
        lambda params, x, c_noise, cond, key: network(x, c_noise / 1000, cond).x0,
        None,
        schedule,
        predict_x0,
    )
    noise = np.random.default_rng(3).standard_normal((10, *Z.shape))
    ts = grids.trailing(schedule, 10)
    x, trace = drive(make(schedule), denoiser, jnp.asarray(Z, jnp.float32), ts, noise)
    assert np.all(np.isfinite(trace))
    np.testing.assert_allclose(x, np.broadcast_to(MEAN, x.shape), atol=1e-5)


# --- identities -------------------------------------------------------------------------

TWINS = {
    "eta_0_is_euler": (samplers.ddim, samplers.euler),
    "eta_1_is_ancestral": (partial(samplers.ddim, eta=1.0), samplers.ancestral),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("schedule", ["linear", "vp_cosine", "edm"])
@pytest.mark.parametrize(("one", "other"), TWINS.values(), ids=TWINS)
def test_twins(one, other, schedule):
    schedule = SCHEDULES[schedule]
    denoiser = exact_denoiser(TWO_MOONS, schedule)
    ts = jnp.append(between(schedule, 5), schedule.t_from_logsnr(jnp.inf))
    noise = np.random.default_rng(1).standard_normal((6, *Z.shape))
    x = schedule.alpha(ts[0]) * np.exp(HALF) * Z
    results = [drive(make(schedule), denoiser, x, ts, noise)[1] for make in (one, other)]
    np.testing.assert_allclose(*results, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("schedule", ["linear"])
def test_last_step_is_the_prediction(schedule, make):
    schedule = SCHEDULES[schedule]
    denoiser = exact_denoiser(TWO_MOONS, schedule)
    ts = jnp.append(between(schedule, 2), schedule.t_from_logsnr(jnp.inf))
    noise = np.random.default_rng(2).standard_normal((9, *Z.shape))
    x, trace = drive(make(schedule), denoiser, jnp.asarray(Z, jnp.float32), ts, noise)
    expected = denoiser(trace[-1], ts[-2], None).x0
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)


# --- gradients --------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "make",
    [
        samplers.ddim,
        *(
            pytest.param(make, marks=pytest.mark.exhaustive)
            for make in (samplers.euler_ancestral, samplers.dpmpp_2m_sde, samplers.sa_solver)
        ),
    ],
)
def test_gradients_by_eta_and_times_are_differences(make, eta):
    """At eta 0, at eta 1 and to clean data, where the roots are of exactly 0."""
    name = "tau" if make is samplers.sa_solver else "eta"
    schedule = SCHEDULES["vp_cosine"]
    denoiser = exact_denoiser(TWO_MOONS, schedule)
    ts = jnp.append(between(schedule, 4), schedule.t_from_logsnr(jnp.inf))
    x = schedule.sigma(ts[0]) * jnp.asarray(Z)

    @jax.jit
    def run(weight, noisy):
        grid = jnp.append(noisy, ts[-1])
        sampler = make(schedule, **{name: weight})
        return jnp.mean(samplers.sample(jax.random.key(0), denoiser, sampler, x, grid) ** 2)

    slopes = jax.jit(jax.grad(run, (0, 1)))(eta, ts[:-1])
    assert all(jnp.all(jnp.isfinite(slope)) for slope in slopes)
    h = 1e-6
    ahead, behind = (run(eta, ts[:-1].at[-1].add(d)) for d in (h, -h))
    np.testing.assert_allclose(slopes[1][-1], (ahead - behind) / (2 * h), rtol=1e-4, atol=1e-6)
