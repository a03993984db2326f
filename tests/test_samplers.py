"""Deterministic samplers against exact probability flows: a new one is one row of ODE."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import (
    SCHEDULES,
    TWO_MOONS,
    ZERO_TERMINAL_SNR,
    Mixture,
    drive,
    exact_denoiser,
    gaussian,
    gaussian_flow,
    posterior_mean,
)
from scipy.integrate import solve_ivp

from diffjax import grids, samplers
from diffjax.diffusion import v_from_x0
from diffjax.parameterization import make_denoiser, predict_v
from diffjax.types import Prediction

# constructor and order of convergence
ODE = {
    "euler": (samplers.euler, 1),
    "ddim": (samplers.ddim, 1),
    "heun": (samplers.heun, 2),
    "dpmpp_2m": (samplers.dpmpp_2m, 2),
}
MEAN, STD = np.array([0.7, -0.4]), 0.5
HALF = 2.0  # grids run between sigma/alpha = e^HALF and e^-HALF, inside every schedule
Z = np.random.default_rng(0).standard_normal((8, 2))


def between(schedule, n):
    """n steps even in logsnr, between two levels that every schedule has."""
    return schedule.t_from_logsnr(jnp.linspace(-2 * HALF, 2 * HALF, n + 1))


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def order(errors):
    """Slope of the error between the last two grids of doubling size."""
    return np.log2(errors[-2] / errors[-1])


# --- deterministic ----------------------------------------------------------------------


@cache
def mixture_flow():
    """x/alpha at the end of the flow dy/dr = eps from y = e^HALF Z, whatever the schedule."""
    mean = jax.jit(lambda y, r: posterior_mean(TWO_MOONS, y, 1.0, r))

    def velocity(r, y):
        y = y.reshape(Z.shape)
        return ((y - mean(y, r)) / r).ravel()

    span = np.exp([HALF, -HALF])
    flow = solve_ivp(velocity, span, span[0] * Z.ravel(), "DOP853", rtol=1e-12, atol=1e-12)
    return flow.y[:, -1].reshape(Z.shape)


def both(schedule):
    """A denoiser of a batch whose halves are two problems: Gaussian data, and a mixture."""
    one = Mixture(TWO_MOONS.weights, np.tile(MEAN, (3, 1)), np.full(3, STD))
    mixtures = jax.tree.map(lambda *leaves: np.repeat(leaves, len(Z), axis=0), one, TWO_MOONS)

    @jax.vmap
    def per_sample(mixture, x, t):
        return posterior_mean(mixture, x[None], schedule.alpha(t), schedule.sigma(t))[0]

    return lambda x, t, cond: Prediction(per_sample(mixtures, x, jnp.broadcast_to(t, len(x))))


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("make", "expected"), ODE.values(), ids=ODE)
def test_order_of_convergence(make, expected, schedule):
    sampler, denoiser, finest = make(schedule), both(schedule), between(schedule, 128)
    alpha_t, alpha_s = schedule.alpha(finest[0]), schedule.alpha(finest[-1])
    x = alpha_t * np.exp(HALF) * Z
    exact = [gaussian_flow(MEAN, STD, schedule, x, finest[0], finest[-1]), alpha_s * mixture_flow()]
    results = [
        drive(sampler, denoiser, jnp.concatenate([x, x]), finest[::stride])[0]
        for stride in (4, 2, 1)
    ]
    for problem, answer in zip(range(2), exact, strict=True):
        errors = [rms(np.split(result, 2)[problem] - answer) for result in results]
        assert abs(order(errors) - expected) < 0.2, errors
        assert errors[-1] < 2 * 16.0**-expected, errors


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("make", "expected"), ODE.values(), ids=ODE)
def test_encode_and_back(make, expected):
    """The noise of given data, and the way back, to the order of the solver at least."""
    schedule = SCHEDULES["vp_cosine"]
    sampler, denoiser = make(schedule), exact_denoiser(gaussian(MEAN, STD), schedule)
    finest, x = between(schedule, 128), jnp.asarray(MEAN + STD * Z)
    exact = gaussian_flow(MEAN, STD, schedule, x, finest[-1], finest[0])
    there, back = [], []
    for ts in (finest[::2], finest):
        noise = jax.jit(partial(samplers.encode, denoiser, sampler))(x, ts)
        there.append(rms(noise - exact))
        back.append(rms(drive(sampler, denoiser, noise, ts)[0] - x))
    for errors in (there, back):
        assert order(errors) > expected - 0.2, errors
        assert errors[-1] < 4 * 16.0**-expected, errors


def exact_network():
    """A network that gives E[v | x_t] from c_noise = 1000 t, also where alpha is 0."""
    denoiser = exact_denoiser(gaussian(MEAN, STD), ZERO_TERMINAL_SNR)

    def network(params, x, c_noise, cond, key):
        t = c_noise / 1000
        return v_from_x0(ZERO_TERMINAL_SNR, x, t, denoiser(x, t, cond).x0)

    return make_denoiser(network, None, ZERO_TERMINAL_SNR, predict_v)


@pytest.mark.parametrize(("make", "expected"), ODE.values(), ids=ODE)
def test_zero_terminal_snr(make, expected):
    schedule = ZERO_TERMINAL_SNR
    ts = grids.trailing(schedule, 200)
    assert schedule.alpha(ts[0]) == 0
    x, ts = jnp.asarray(Z, jnp.float32), ts[:-1]
    result, _ = drive(make(schedule), exact_network(), x, ts)
    exact = gaussian_flow(MEAN, STD, schedule, x, ts[0], ts[-1])
    np.testing.assert_allclose(result, exact, atol=0.02)
