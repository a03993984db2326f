"""The spread of samples of N(0.7, 0.4^2) for every stochastic sampler, from the loop's own draws.

Golden cases fix the draws, and so cannot see that two draws of a step are wrongly correlated.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax

from diffjax import grids, samplers, schedules
from diffjax.diffusion import prior_sample
from diffjax.run import flags
from diffjax.samplers.noise import path_noise
from diffjax.types import Sampler

MEAN, STD, N = 0.7, 0.4, 40_000
GAUSSIAN = oracles.gaussian([MEAN], STD)
STANDARD_ERROR = 1 / np.sqrt(2 * N)
SCHEDULES = {"edm": schedules.edm(), "linear": schedules.from_betas(schedules.linear_betas(1000))}
STEPS = (20, 50, 200)

# Largest distance of the ratio of standard deviations from 1 in 20, 50 and 200 Karras steps. It
# falls with the weak order of the sampler; three are what the Langevin steps are too few for.
FIRST, SECOND = (0.27, 0.13, 0.034), (0.14, 0.033, 0.0035)
RATIOS = {
    "ancestral": (samplers.ancestral, FIRST),
    "ddim": (partial(samplers.ddim, eta=1.0), FIRST),
    "euler_ancestral": (samplers.euler_ancestral, FIRST),
    "euler_maruyama": (samplers.euler_maruyama, (0.17, 0.06, 0.014)),
    "reverse_diffusion": (samplers.reverse_diffusion, (0.36, 0.13, 0.03)),
    "dpmpp_sde": (samplers.dpmpp_sde, (0.05, 0.008, 0.001)),  # k-diffusion: 0.957, 0.993 on edm
    "dpmpp_2s_ancestral": (samplers.dpmpp_2s_ancestral, SECOND),
    "dpmpp_2m_sde": (samplers.dpmpp_2m_sde, SECOND),
    "dpmpp_3m_sde": (samplers.dpmpp_3m_sde, (0.2, 0.009, 0.001)),
    "edm_stochastic": (partial(samplers.edm_stochastic, noise_scale=1.0), SECOND),
    "sa_solver": (samplers.sa_solver, (0.15, 0.002, 0.0005)),
    "predictor_corrector": (samplers.predictor_corrector, (0.33, 0.1, 0.015)),
    "langevin": (partial(samplers.langevin, steps=10), (2.6, 0.21, 0.02)),
    "restart": (samplers.restart, (0.04, 0.02, 0.02)),
    "predictor_corrector of dpmpp_sde": (
        partial(samplers.predictor_corrector, predictor=samplers.dpmpp_sde),
        (0.05, 0.008, 0.003),
    ),
    "restart of dpmpp_sde": (
        partial(samplers.restart, sampler=samplers.dpmpp_sde, noise_min=0.3, noise_max=2.0),
        (0.1, 0.06, 0.06),
    ),
}


def exact_ratio(schedule, sampler, ts):
    """Standard deviation of the result over STD: the run is linear in all its noise."""
    n = len(ts) - 1
    inputs = 1 + n * sampler.draws
    unit = np.eye(inputs, inputs + 1)[:, :, None]
    denoiser = oracles.exact_denoiser(GAUSSIAN, schedule)

    @jax.jit
    def run(x, noise, ts):
        def body(carry, part):
            (x, state), (z, t, s) = carry, part
            z = z if sampler.inner is None else path_noise(z, sampler.inner(t, s))
            return sampler.step(z, lambda x, t: denoiser(x, t, None), x, t, s, state), None

        (x, _), _ = lax.scan(body, (x, sampler.init(x, ts)), (noise, ts[:-1], ts[1:]))
        return x[:, 0]

    x = jnp.asarray(unit[0]) * schedule.sigma(ts[0])
    noise = jnp.asarray(unit[1:].reshape(n, sampler.draws, inputs + 1, 1))
    weights = np.asarray(run(x, noise, ts))
    return np.sqrt(np.sum((weights[:-1] - weights[-1]) ** 2)) / STD


def drawn_ratio(loop):
    """Standard deviation over STD of N samples, loop(key, x) -> samples."""
    x_key, key = jax.random.split(jax.random.key(5))
    return float(np.std(np.asarray(jax.jit(loop)(key, x_key)))) / STD


def loops(schedule, sampler, ts):
    """`sample` and `sample_brownian` from the prior."""
    denoiser = oracles.exact_denoiser(GAUSSIAN, schedule)

    def prior(key):
        return prior_sample(key, schedule, (N, 1))

    yield lambda key, x: samplers.sample(key, denoiser, sampler, prior(x), ts)
    yield lambda key, x: samplers.sample_brownian(key, denoiser, sampler, schedule, prior(x), ts)


EXHAUSTIVE = pytest.mark.exhaustive


@EXHAUSTIVE
@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("name", RATIOS)
def test_the_spread_tends_to_that_of_the_data(x64, name, on):
    make, bounds = RATIOS[name]
    for n, bound in zip(STEPS, bounds, strict=True):
        if name in ("langevin", "restart of dpmpp_sde") and n > 50:
            continue  # as many rows as draws
        ratio = exact_ratio(SCHEDULES[on], make(SCHEDULES[on]), grids.karras(SCHEDULES[on], n))
        assert abs(ratio - 1) < bound, (n, ratio)


def test_the_spread_of_dpmpp_sde_is_that_of_the_reference(x64):
    """k-diffusion's, whose two draws of a step are increments of one Brownian path."""
    for n, wanted in ((20, 0.957), (50, 0.993)):
        schedule = SCHEDULES["edm"]
        ratio = exact_ratio(schedule, samplers.dpmpp_sde(schedule), grids.karras(schedule, n))
        assert abs(ratio - wanted) < 0.002


@pytest.mark.parametrize(
    ("name", "n", "which"),
    [("dpmpp_sde", 20, 0)]
    + [
        pytest.param(name, n, which, marks=EXHAUSTIVE)
        for name in RATIOS
        for n in (20, 50)
        for which in (0, 1)
        if (name, which) not in (("langevin", 1), ("restart", 1), ("restart of dpmpp_sde", 1))
    ],
)
def test_the_loops_draw_what_the_sampler_wants(name, n, which):
    """The spread of real draws is the exact one of the noise that a sampler asks for."""
    schedule, make = SCHEDULES["edm"], RATIOS[name][0]
    sampler, ts = make(schedule), grids.karras(schedule, n)
    wanted = exact_ratio(schedule, sampler, ts)
    loop = list(loops(schedule, sampler, ts))[which]
    assert abs(drawn_ratio(loop) / wanted - 1) < 4.5 * STANDARD_ERROR


def test_every_stochastic_sampler_has_a_statistical_row():
    rows = {make.func if isinstance(make, partial) else make for make, _ in RATIOS.values()}
    made = flags.constructors(samplers, Sampler).values()
    needed = {make for make in made if make(SCHEDULES["edm"]).draws}
    assert needed - {samplers.ddim} <= rows


@EXHAUSTIVE
def test_inner_draws_refine_with_the_grid():
    """`dpmpp_sde` along one path: finer grids give the same sample, nearer and nearer."""
    schedule = SCHEDULES["linear"]
    denoiser, sampler = oracles.exact_denoiser(GAUSSIAN, schedule), samplers.dpmpp_sde(schedule)
    x = prior_sample(jax.random.key(7), schedule, (256, 1))
    found = [
        jax.jit(
            partial(
                samplers.sample_brownian,
                denoiser=denoiser,
                sampler=sampler,
                schedule=schedule,
                ts=grids.karras(schedule, n),
            )
        )(jax.random.key(9), x=x)
        for n in (8, 32, 128)
    ]
    errors = [float(jnp.sqrt(jnp.mean((a - found[-1]) ** 2))) for a in found[:-1]]
    assert errors[1] < errors[0] / 2.5


def test_path_noise_has_the_covariance_of_one_path():
    z = path_noise(jnp.eye(4)[:, :, None], jnp.asarray([0.25, 0.5]))[:, :, 0]
    ends = np.array([0.25, 0.5, 1.0])
    wanted = np.minimum.outer(ends, ends) / np.sqrt(np.outer(ends, ends))
    np.testing.assert_allclose((z @ z.T)[:3, :3], wanted, atol=1e-6)
    np.testing.assert_allclose((z @ z.T)[3], np.eye(4)[3], atol=1e-6)
