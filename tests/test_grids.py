"""Grids: the sigmas of a public reference, order on every schedule, and grids that are found."""

import inspect
from functools import cache, partial
from itertools import combinations, pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import SCHEDULES, TWO_MOONS, ZERO_TERMINAL_SNR, exact_denoiser

from diffjax import grids, samplers, schedules
from diffjax.diffusion import prior_sample
from diffjax.errors import InputError
from diffjax.grids.search import cheapest_chain
from diffjax.samplers.learned_grid import descend, ordered_logsnrs
from diffjax.types import Grid

GOLDEN = Path(__file__).parent / "golden" / "k_sigma_space.npz"
CHOSEN = {
    name: grid
    for name, grid in vars(grids).items()
    if inspect.isfunction(grid) and inspect.signature(grid).return_annotation == Grid
}
TABLES = {
    "sdxl": partial(grids.align_your_steps, table=grids.STABLE_DIFFUSION_XL),
    "svd": partial(grids.align_your_steps, table=grids.STABLE_VIDEO_DIFFUSION),
}
POLYEXPONENTIAL = {f"rho {rho}": partial(grids.polyexponential, rho=rho) for rho in (0.5, 2.0)}
GRIDS = CHOSEN | TABLES | POLYEXPONENTIAL


def ratio(schedule, ts):
    """Noise levels sigma/alpha."""
    return np.asarray(schedule.sigma(ts) / schedule.alpha(ts))


def test_chosen_by_name():
    assert set(CHOSEN) == {
        *("leading", "trailing", "linspace", "karras", "uniform_logsnr", "exponential"),
        *("polyexponential", "vp_uniform", "beta_quantiles", "align_your_steps"),
    }


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("exponential", grids.exponential),
        ("exponential", grids.polyexponential),
        ("vp", grids.vp_uniform),
        ("karras", grids.karras),
    ],
)
def test_k_diffusion_sigmas(name, grid):
    with np.load(GOLDEN) as data:
        sigmas = data[f"euler-{name}-10/sigmas"]
    ts = grid(schedules.edm(0.02, max(80.0, sigmas[0])), 10)
    np.testing.assert_allclose(ts, sigmas, rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_decreasing(grid, name):
    schedule = SCHEDULES[name]
    for n in (1, 7, 50):
        check_decreasing(grid, schedule, n)


def check_decreasing(grid, schedule, n):
    ts = np.asarray(grid(schedule, n))
    assert ts.shape == (n + 1,)
    assert np.all(np.diff(ts) < 0)
    assert ts[0] <= np.float32(schedule.t_max)
    clean = float(schedule.sigma(jnp.asarray(ts[-1]))) == 0
    assert clean != (grid is grids.linspace)


def test_sigma_range():
    ts = grids.exponential(schedules.edm(), 5, sigma_min=0.1, sigma_max=10.0)
    np.testing.assert_allclose(ts[:-1], np.geomspace(10, 0.1, 5), rtol=1e-5)


def test_polyexponential_moves_towards_the_end_of_its_power():
    sigmas = [grids.polyexponential(schedules.edm(), 9, rho)[1:-2] for rho in (0.5, 1.0, 2.0)]
    assert np.all(np.diff(np.stack(sigmas), axis=0) < 0)


def test_vp_uniform_is_even_in_the_time_of_its_own_schedule():
    ts = grids.vp_uniform(schedules.vp_linear(0.1, 20.0), 12)
    np.testing.assert_allclose(ts[:-1], np.linspace(1, 1e-3, 12), rtol=2e-3)


def test_beta_quantiles():
    schedule = SCHEDULES["vp_linear"]
    even = grids.beta_quantiles(schedule, 8, 1.0, 1.0)
    np.testing.assert_allclose(np.diff(even[:-1]), -(1 - 1e-3) / 8, rtol=1e-4)
    arcsine = grids.beta_quantiles(schedule, 8, 0.5, 0.5)  # F^-1(u) = sin^2(pi u/2)
    expected = 1e-3 + (1 - 1e-3) * np.sin(np.pi / 2 * (1 - np.arange(8) / 8)) ** 2
    np.testing.assert_allclose(arcsine[:-1], expected, rtol=1e-5)


def test_align_your_steps_tables():
    """10 steps are the table itself; 20 pass through it, with geometric means between."""
    for table in (grids.STABLE_DIFFUSION_15, grids.STABLE_DIFFUSION_XL):
        schedule = SCHEDULES["edm"]
        ten, twenty = (np.asarray(grids.align_your_steps(schedule, n, table)) for n in (10, 20))
        np.testing.assert_allclose(ten[:-1], table[:-1], rtol=1e-5)
        np.testing.assert_allclose(twenty[:-1:2], table[:-1], rtol=1e-5)
        np.testing.assert_allclose(twenty[1::2], np.sqrt(np.multiply(table[1:], table[:-1])), 1e-5)
    video = grids.align_your_steps(schedules.edm(0.002, 700.0), 10, grids.STABLE_VIDEO_DIFFUSION)
    np.testing.assert_allclose(video[:-1], grids.STABLE_VIDEO_DIFFUSION[:-1], rtol=1e-5)


def test_ends_beyond_the_schedule_are_its_own():
    """Noise of 1000 is not there: the grid begins at t_max, where 157 is."""
    schedule = schedules.from_betas(schedules.linear_betas(1000))
    for grid in (grids.karras, grids.exponential, grids.polyexponential):
        ts = grid(schedule, 10, sigma_max=1000.0)
        np.testing.assert_allclose(ts, grid(schedule, 10), rtol=1e-5)


def test_given_ends_need_no_range():
    """Rectified flow has pure noise at t_max; sigma/alpha = t/(1 - t) gives t."""
    sigma = np.linspace(80 ** (1 / 7), 0.01 ** (1 / 7), 5) ** 7
    ts = grids.karras(schedules.rectified_flow(), 5, sigma_min=0.01, sigma_max=80.0)
    np.testing.assert_allclose(ts, np.append(sigma / (1 + sigma), 0), rtol=1e-5)


def test_a_grid_made_in_jit_is_checked():
    with pytest.raises(InputError, match="decrease"):
        jax.jit(lambda: grids.karras(EDM, 5, sigma_min=2.0, sigma_max=2.0))()


def test_a_traced_schedule_makes_a_grid():
    def make(t_max):
        return grids.karras(EDM._replace(t_max=t_max), 5)

    np.testing.assert_allclose(jax.jit(make)(80.0), make(80.0), rtol=1e-5)


# --- searched ---------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_cheapest_chain_is_the_best_of_all(N, seed):
    costs = np.random.default_rng(seed).uniform(size=(N, N + 1))
    for n in range(1, N + 1):
        chains = [(0, *inner, N) for inner in combinations(range(1, N), n - 1)]
        sums = [sum(costs[i, j] for i, j in pairwise(chain)) for chain in chains]
        found = cheapest_chain(costs, n)
        assert tuple(found) in chains
        assert sum(costs[i, j] for i, j in pairwise(found)) <= min(sums) + 1e-12


STEPS = 6


@cache
def problem(name):
    """Schedule, denoiser, and a function (x, ts) -> DPM++(2M) samples."""
    schedule = SCHEDULES[name]
    denoiser = exact_denoiser(TWO_MOONS, schedule)

    @partial(jax.jit, static_argnums=0)
    def run(sampler, x, ts):
        return samplers.sample(jax.random.key(0), denoiser, sampler(schedule), x, ts)

    return schedule, denoiser, run


def held_out_error(name, ts, sampler=samplers.dpmpp_2m):
    """RMS to the fine solution, from noise that no grid was fitted to."""
    schedule, _, run = problem(name)
    x = prior_sample(jax.random.key(99), schedule, (2048, 2))
    fine = run(samplers.heun, x, grids.karras(schedule, 200))
    return float(jnp.sqrt(jnp.mean((run(sampler, x, ts) - fine) ** 2)))


@pytest.mark.exhaustive
def test_gits_errs_less_than_the_grid_it_searches():
    schedule, denoiser, _ = problem("edm")
    x = prior_sample(jax.random.key(1), schedule, (256, 2))
    ts = grids.gits(schedule, STEPS, denoiser, x)
    fine = grids.karras(schedule, 60)
    assert set(np.asarray(ts).tolist()) <= set(np.asarray(fine).tolist())
    assert (ts[0], ts[-1]) == (fine[0], fine[-1])
    searched = held_out_error("edm", ts, samplers.euler)
    assert searched < 0.8 * held_out_error("edm", grids.karras(schedule, STEPS), samplers.euler)


# --- learned ----------------------------------------------------------------------------


ordered = jax.jit(lambda logits: ordered_logsnrs(logits, -9.0, 12.0))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=4, max_size=4))
def test_learned_times_stay_ordered(logits):
    logsnrs = np.asarray(ordered(jnp.asarray(logits)))
    assert np.all(np.diff(logsnrs) >= 0)
    assert (logsnrs[0], logsnrs[-1]) == (-9.0, 12.0)


@cache
def learned(name, steps=200, **rest):
    schedule, denoiser, _ = problem(name)

    @jax.jit
    def learn(x):
        return samplers.learn_grid(
            jax.random.key(2),
            denoiser,
            samplers.dpmpp_2m(schedule),
            schedule,
            grids.karras(schedule, STEPS),
            x,
            steps=steps,
            **rest,
        )

    return learn(prior_sample(jax.random.key(1), schedule, (512, 2)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["edm", "vp_linear"])
def test_learned_grid_halves_the_error(name):
    """At 6 calls of DPM++(2M), against the Karras grid of rho 7, on held-out noise."""
    schedule = SCHEDULES[name]
    ts, errors = learned(name)
    karras = grids.karras(schedule, STEPS)
    assert np.all(np.diff(ts) < 0)
    assert (ts[0], ts[-1]) == (karras[0], karras[-1])
    assert errors[-1] < errors[0]
    assert held_out_error(name, ts) < 0.5 * held_out_error(name, karras)


@pytest.mark.exhaustive
@pytest.mark.parametrize("learn", [samplers.learn_grid, samplers.learn_decoupled_grid])
def test_a_learned_grid_is_never_worse_than_its_start(learn):
    """With a learning rate that leaps away, the start comes back, to the bit."""
    schedule, denoiser, _ = problem("edm")
    ts = learned("edm")[0]
    x = prior_sample(jax.random.key(1), schedule, (512, 2))
    sampler = samplers.dpmpp_2m(schedule)
    again, *offsets, errors = jax.jit(
        lambda x: learn(
            jax.random.key(2), denoiser, sampler, schedule, ts, x, steps=4, learning_rate=1.0
        )
    )(x)
    assert errors[-1] > errors[0]
    np.testing.assert_array_equal(again, ts)
    assert not np.any(offsets)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_learned_times_of_ddim_improve():
    schedule, denoiser, _ = problem("edm")
    x = prior_sample(jax.random.key(1), schedule, (64, 2))
    start = grids.karras(schedule, STEPS)

    @jax.jit
    def learn(x):
        sampler = samplers.ddim(schedule)
        return samplers.learn_grid(
            jax.random.key(0), denoiser, sampler, schedule, start, x, steps=60
        )

    _, losses = learn(x)
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.9 * losses[0]


def test_a_descent_that_is_not_finite_warns():
    """|x| has its slope by a square root at 0: NaN, and so is every loss after the first."""

    def run():
        start = jnp.asarray(0.0)
        found = descend(jax.random.key(0), lambda x: jnp.sqrt(x**2), start, steps=3)
        jax.effects_barrier()
        return found

    with jax.debug_nans(False), pytest.warns(RuntimeWarning, match="descent"):
        best, losses = run()
    assert best == 0
    assert losses[0] == 0


def test_smoothed_gradient_of_a_quadratic():
    """Exact in the mean for a quadratic: eps eps^T has mean I. 4,000 pairs: within 5 std."""
    point = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(0.5)}
    loss = lambda p: jnp.sum(jnp.asarray([3.0, 1.0]) * p["a"] ** 2) + p["b"]  # noqa: E731
    value, slope = samplers.smoothed(pairs=4000, width=0.3)(loss, point, jax.random.key(0))
    exact_value, exact = samplers.backpropagated(loss, point, jax.random.key(0))
    assert value == exact_value == 7.5
    deviation = 5 * np.sqrt(2 * (36 + 16 + 1) / 4000)
    np.testing.assert_allclose(slope["a"], exact["a"], atol=deviation)
    np.testing.assert_allclose(slope["b"], exact["b"], atol=deviation)


def test_smoothed_gradient_sees_a_jump():
    """The slope of E[point + width eps > 0] at 0 is 1 / (sqrt(2 pi) width); its own is 0."""
    loss = lambda p: jnp.where(p > 0, 1.0, 0.0)  # noqa: E731
    zero, key = jnp.asarray(0.0), jax.random.key(0)
    assert samplers.backpropagated(loss, zero, key)[1] == 0
    slope = samplers.smoothed(pairs=4000, width=0.5)(loss, zero, key)[1]
    np.testing.assert_allclose(slope, 1 / (np.sqrt(2 * np.pi) * 0.5), rtol=0.08)


@pytest.mark.exhaustive
def test_grid_learned_from_forward_runs():
    schedule = SCHEDULES["edm"]
    ts, _ = learned("edm", steps=60, learning_rate=0.2, gradient=samplers.smoothed())
    assert held_out_error("edm", ts) < 0.5 * held_out_error("edm", grids.karras(schedule, STEPS))


@pytest.mark.exhaustive
def test_fixed_end():
    ts, _ = learned("edm", free_end=False)
    karras = grids.karras(SCHEDULES["edm"], STEPS)
    np.testing.assert_allclose(ts[-2], karras[-2], rtol=1e-5)
    assert held_out_error("edm", learned("edm")[0]) < held_out_error("edm", ts)
    assert held_out_error("edm", ts) < held_out_error("edm", karras)


EDM = SCHEDULES["edm"]
ONE_BETA = schedules.from_betas(np.array([0.5]))
NOISE = jnp.zeros((2, 2))
BAD = {
    "no steps": (lambda: grids.vp_uniform(EDM, 0), "at least 1 step"),
    "no steps of a table": (lambda: grids.align_your_steps(EDM, 0), "at least 1 step"),
    "shape": (lambda: grids.beta_quantiles(EDM, 5, a=0.0), "above 0"),
    "table": (lambda: grids.align_your_steps(EDM, 5, [1.0, 2.0]), "decreasing"),
    "sigma_min 0": (lambda: grids.karras(EDM, 5, sigma_min=0.0), "sigma_min"),
    "sigma_min 0, exponential": (lambda: grids.exponential(EDM, 5, sigma_min=0.0), "sigma_min"),
    "ends": (lambda: grids.karras(EDM, 5, sigma_min=3.0, sigma_max=2.0), "below the highest"),
    "ends, exponential": (lambda: grids.exponential(EDM, 5, 3.0, 2.0), "below the highest"),
    "end beyond": (lambda: grids.karras(EDM, 5, sigma_min=100.0), "below the highest"),
    "rho": (lambda: grids.karras(EDM, 5, rho=0.0), "rho"),
    "power": (lambda: grids.polyexponential(EDM, 5, rho=0.0), "rho"),
    "rate": (lambda: grids.vp_uniform(EDM, 5, beta_d=-1.0), "positive beta_d"),
    "eta": (lambda: samplers.ddim(EDM, eta=float("inf")), "finite; got inf"),
    "churn": (lambda: samplers.edm_stochastic(EDM, noise_max=float("nan")), "at most noise_max"),
    "fraction": (lambda: samplers.midpoint(EDM, fraction=1.5), r"in \[0, 1\]; got 1.5"),
    "offsets": (lambda: samplers.decoupled(EDM, offsets=float("nan")), "offsets"),
    "restart": (lambda: samplers.restart(EDM, noise_max=float("inf")), "positive noise_max"),
    "T 1": (lambda: grids.karras(ONE_BETA, 2), "decrease"),
    "T 1, logsnr": (lambda: grids.uniform_logsnr(ONE_BETA, 2), "decrease"),
    "T 1, quantiles": (lambda: grids.beta_quantiles(ONE_BETA, 2), "decrease"),
    "T 1, leading": (lambda: grids.leading(ONE_BETA, 2, T=1), "at most T = 1"),
    "ties": (lambda: grids.respaced(EDM, [2**25], 2**25), "decrease"),
    "sections": (lambda: grids.respaced(EDM, "10,x"), "whole numbers"),
    "no section": (lambda: grids.respaced(EDM, []), "sections"),
    "zero SNR": (lambda: grids.exponential(ZERO_TERMINAL_SNR, 5), "trailing"),
    "fine": (lambda: grids.gits(EDM, 61, lambda x, t, cond: x, NOISE), "cannot give 61"),
    "one step": (
        lambda: samplers.learn_grid(
            jax.random.key(0),
            problem("edm")[1],
            samplers.euler(EDM),
            EDM,
            grids.karras(EDM, 1),
            NOISE,
        ),
        "at least 2 steps",
    ),
    "infinite": (
        lambda: samplers.learn_grid(
            jax.random.key(0),
            problem("edm")[1],
            samplers.euler(ZERO_TERMINAL_SNR),
            ZERO_TERMINAL_SNR,
            grids.trailing(ZERO_TERMINAL_SNR, 4),
            NOISE,
        ),
        "finite log-SNR",
    ),
}


@pytest.mark.parametrize(("call", "says"), BAD.values(), ids=BAD)
def test_bad_input(call, says):
    with pytest.raises(InputError, match=says):
        call()
