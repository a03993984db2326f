"""The spread of samples of N(0.7, 0.4^2) for every stochastic sampler, from the loop's own draws.

Golden cases fix the draws, and so cannot see that two draws of a step are wrongly correlated.
"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax

from diffjax import grids, samplers, schedules
from diffjax.diffusion import prior_sample
from diffjax.run import flags
from diffjax.samplers.info import sampler_info
from diffjax.samplers.noise import path_noise
from diffjax.types import Sampler

MEAN, STD, N = 0.7, 0.4, 40_000
GAUSSIAN = oracles.gaussian([MEAN], STD)
STANDARD_ERROR = 1 / np.sqrt(2 * N)
SCHEDULES = {"edm": schedules.edm(), "linear": schedules.from_betas(schedules.linear_betas(1000))}
STEPS = (20, 50, 200)

RUNS = {
    "ancestral": samplers.ancestral,
    "ddim": partial(samplers.ddim, eta=1.0),
    "euler_ancestral": samplers.euler_ancestral,
    "euler_maruyama": samplers.euler_maruyama,
    "reverse_diffusion": samplers.reverse_diffusion,
    "dpmpp_sde": samplers.dpmpp_sde,
    "dpmpp_2s_ancestral": samplers.dpmpp_2s_ancestral,
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "dpmpp_3m_sde": samplers.dpmpp_3m_sde,
    "edm_stochastic": partial(samplers.edm_stochastic, noise_scale=1.0),
    "sa_solver": samplers.sa_solver,
    "predictor_corrector": samplers.predictor_corrector,
    "langevin": partial(samplers.langevin, steps=10),
    "restart": samplers.restart,
    "predictor_corrector of dpmpp_sde": partial(
        samplers.predictor_corrector, predictor=samplers.dpmpp_sde
    ),
    "restart of dpmpp_sde": partial(
        samplers.restart, sampler=samplers.dpmpp_sde, noise_min=0.3, noise_max=2.0
    ),
}

# --- what is right -----------------------------------------------------------------------
#
# Of N(0, S) every published step is linear: x -> A x + noise, so the variance goes from V to
# A^2 V + the noise's. Written in sigma as the papers and released codes have it, with
# x0_hat = S/(S + t^2) x and t, s the noise levels.

S = STD**2


def keep(t):
    """x0_hat/x."""
    return S / (S + t**2)


def ancestral(V, t, s):
    """sample_euler_ancestral, at eta 1 that of DDPM and DDIM."""
    down, up = s**2 / t, s * np.sqrt(1 - (s / t) ** 2)
    return (keep(t) + down / t * (1 - keep(t))) ** 2 * V + up**2


def reverse_diffusion(V, t, s):
    """Song et al. 2021, Eq. 46, whose last step is the denoiser's."""
    rate = t**2 - s**2 if s else 0
    return (1 - rate / (S + t**2)) ** 2 * V + rate if s else keep(t) ** 2 * V


def euler_maruyama(V, t, s):
    """dx = -2 t score dt + sqrt(2 t) dw, whose last step is the denoiser's."""
    rate = 2 * t * (t - s)
    return (1 - rate / (S + t**2)) ** 2 * V + rate if s else keep(t) ** 2 * V


def dpmpp_sde(V, t, s):
    """sample_dpmpp_sde at r = 1/2, with draws that are increments of one path."""
    if s == 0:
        return keep(t) ** 2 * V
    m = np.sqrt(t * s)
    (down_m, up_m), (down, up) = ((u**2 / t, u * np.sqrt(1 - (u / t) ** 2)) for u in (m, s))
    middle = down_m / t + (1 - down_m / t) * keep(t)
    share = (1 - down / t) * keep(m)
    covariance = up_m * up * np.sqrt((t - m) / (t - s))
    return (
        (down / t + share * middle) ** 2 * V
        + (share * up_m) ** 2
        + up**2
        + 2 * (share * covariance)
    )


def heun(V, t, s):
    """Karras et al. 2022, Alg. 1."""
    euler = 1 + (s - t) * t / (S + t**2)
    factor = 1 + (s - t) / 2 * (t / (S + t**2) + euler * s / (S + s**2)) if s else euler
    return factor**2 * V


def churned(V, t, s, n):
    """Karras et al. 2022, Alg. 2 with S_churn 40, S_tmin 0.05, S_tmax 50, S_noise 1."""
    if 0.05 <= t <= 50:
        t_hat = t * (1 + min(40 / n, np.sqrt(2) - 1))
        V, t = V + t_hat**2 - t**2, t_hat
    return heun(V, t, s)


def corrected(V, s, snr, steps=1):
    """Langevin steps of size 2 (snr s)^2; none at clean data."""
    for _ in range(steps if s else 0):
        size = 2 * (snr * s) ** 2
        V = (1 - size / (S + s**2)) ** 2 * V + 2 * size
    return V


def levels(n, low, high):
    """Karras et al. 2022, Eq. 5, without the clean end."""
    return (high ** (1 / 7) + np.linspace(0, 1, n) * (low ** (1 / 7) - high ** (1 / 7))) ** 7


def restarted(step, low, high):
    """Xu et al. 2023, Alg. 2: twice up from the level nearest to `low`, and down in two steps."""

    def run(V, t, s, ts):
        V = step(V, t, s)
        inner = ts[1:-1][ts[1:-1] < high]
        if s == inner[np.argmin(np.abs(inner - low))]:
            down = levels(3, s, high)
            for _ in range(2):
                V = V + high**2 - s**2
                for a, b in pairwise(down):
                    V = step(V, a, b)
        return V

    return run


STEP = {  # in sigma/alpha, and so the same on every schedule
    "ancestral": lambda V, t, s, ts: ancestral(V, t, s),
    "dpmpp_sde": lambda V, t, s, ts: dpmpp_sde(V, t, s),
    "edm_stochastic": lambda V, t, s, ts: churned(V, t, s, len(ts) - 1),
    "restart": restarted(heun, 0.06, 0.3),
    "restart of dpmpp_sde": restarted(dpmpp_sde, 0.3, 2.0),
}
STEP |= dict.fromkeys(("ddim", "euler_ancestral"), STEP["ancestral"])
STEP_ON_EDM = STEP | {
    "euler_maruyama": lambda V, t, s, ts: euler_maruyama(V, t, s),
    "reverse_diffusion": lambda V, t, s, ts: reverse_diffusion(V, t, s),
    "predictor_corrector": lambda V, t, s, ts: corrected(reverse_diffusion(V, t, s), s, 0.16),
    "predictor_corrector of dpmpp_sde": lambda V, t, s, ts: corrected(dpmpp_sde(V, t, s), s, 0.16),
    "langevin": lambda V, t, s, ts: corrected(V, s, 0.22, 10) if s else keep(t) ** 2 * V,
}

# k-diffusion's own functions in float64 on `edm` in 20, 50 and 200 steps, all noise linear.
K_DIFFUSION = {
    "euler_ancestral": (0.75069, 0.88581, 0.96932),
    "dpmpp_2s_ancestral": (0.92402, 0.98539, 0.99901),
    "dpmpp_sde": (0.95619, 0.9935, 0.99968),
    "dpmpp_2m_sde": (1.11599, 1.01833, 1.00102),
    "dpmpp_3m_sde": (1.02564, 1.00705, 1.00049),
}
WEAK = ("ancestral", "euler_maruyama", "reverse_diffusion", "predictor_corrector", "dpmpp_sde")
WEAK += ("dpmpp_2s_ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde")


def right_ratio(step, schedule, n):
    """The ratio that a recursion of the variance gives."""
    low, high = (float(schedule.sigma(t) / schedule.alpha(t)) for t in ends(schedule))
    ts, V = np.append(levels(n, low, high), 0), high**2
    for t, s in pairwise(ts):
        V = step(V, t, s, ts)
    return np.sqrt(V / S)


def ends(schedule):
    return jnp.asarray(schedule.t_min, float), jnp.asarray(schedule.t_max, float)


# --- what is made ------------------------------------------------------------------------


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


def found_ratio(name, on, n):
    schedule = SCHEDULES[on]
    return exact_ratio(schedule, RUNS[name](schedule), grids.karras(schedule, n))


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize(
    ("name", "on"),
    [("dpmpp_sde", "edm")]
    + [pytest.param(name, "edm", marks=EXHAUSTIVE) for name in STEP_ON_EDM if name != "dpmpp_sde"]
    + [pytest.param(name, "linear", marks=EXHAUSTIVE) for name in STEP],
)
def test_the_spread_is_that_of_the_published_step(x64, name, on, n):
    wanted = right_ratio(STEP_ON_EDM[name], SCHEDULES[on], n)
    assert abs(found_ratio(name, on, n) - wanted) < 2e-4


@EXHAUSTIVE
@pytest.mark.parametrize("name", K_DIFFUSION)
def test_the_spread_is_that_of_k_diffusion(x64, name):
    found = [found_ratio(name, "edm", n) for n in STEPS]
    np.testing.assert_allclose(found, K_DIFFUSION[name], atol=2e-5)


@EXHAUSTIVE
@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("name", [*WEAK, "sa_solver"])
def test_the_spread_tends_to_that_of_the_data(x64, name, on):
    """By the weak order, with a half over for steps that are not small.

    From 50 steps; that of `sa_solver` crosses 1 near 50, and so from 20.
    """
    order = sampler_info(RUNS[name]).order or 1
    start = 20 if name == "sa_solver" else 50
    few, many = (abs(found_ratio(name, on, n) - 1) for n in (start, 200))
    assert many < 1.5 * few * (start / 200) ** order


@pytest.mark.parametrize(
    ("name", "n", "which"),
    [("dpmpp_sde", 20, 0)]
    + [
        pytest.param(name, n, which, marks=EXHAUSTIVE)
        for name in RUNS
        for n, which in ((20, 0), (50, 0), (20, 1))
        if (name, n, which) != ("dpmpp_sde", 20, 0)
        if (name, which) not in (("langevin", 1), ("restart", 1), ("restart of dpmpp_sde", 1))
    ],
)
def test_the_loops_draw_what_the_sampler_wants(name, n, which):
    """The spread of real draws is the exact one of the noise that a sampler asks for."""
    schedule, make = SCHEDULES["edm"], RUNS[name]
    sampler, ts = make(schedule), grids.karras(schedule, n)
    wanted = exact_ratio(schedule, sampler, ts)
    loop = list(loops(schedule, sampler, ts))[which]
    assert abs(drawn_ratio(loop) / wanted - 1) < 4.5 * STANDARD_ERROR


def test_every_stochastic_sampler_has_a_statistical_row():
    rows = {make.func if isinstance(make, partial) else make for make in RUNS.values()}
    made = flags.constructors(samplers, Sampler).values()
    needed = {make for make in made if make(SCHEDULES["edm"]).draws}
    assert needed - {samplers.ddim} <= rows


@EXHAUSTIVE
def test_inner_draws_refine_with_the_grid():
    """`dpmpp_sde` along one path: of strong order 1/2 at least, so four times the steps halve.

    With draws that do not belong to the path the distance does not fall at all.
    """
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
    assert errors[1] < errors[0] / 2


def test_path_noise_has_the_covariance_of_one_path():
    z = path_noise(jnp.eye(4)[:, :, None], jnp.asarray([0.25, 0.5]))[:, :, 0]
    ends = np.array([0.25, 0.5, 1.0])
    wanted = np.minimum.outer(ends, ends) / np.sqrt(np.outer(ends, ends))
    np.testing.assert_allclose((z @ z.T)[:3, :3], wanted, atol=1e-6)
    np.testing.assert_allclose((z @ z.T)[3], np.eye(4)[3], atol=1e-6)
