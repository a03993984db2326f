"""A denoiser asked about other times than the sampler's: against one that is wrong by a known
amount, and learned against exact solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, TWO_MOONS, ZERO_TERMINAL_SNR, exact_denoiser

from diffjax import grids, samplers
from diffjax.diffusion import prior_sample
from diffjax.errors import InputError
from diffjax.samplers.decoupled import shift_time
from diffjax.schedules import logsnr

SOLVERS = {
    "dpmpp_2m": samplers.dpmpp_2m,
    "dpm_solver": samplers.dpm_solver,  # asks between the times of the grid too
    "unipc": samplers.unipc,
}


def misheard(schedule, offset):
    """The exact denoiser, of x_t with a log-SNR that much less than what it is told."""
    exact = exact_denoiser(TWO_MOONS, schedule)

    def denoiser(x, t, cond):
        return exact(x, schedule.t_from_logsnr(logsnr(schedule, t) - offset), cond)

    return denoiser


@pytest.mark.parametrize("name", ["edm", pytest.param("vp_linear", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "solver",
    ["dpmpp_2m", "dpm_solver", pytest.param("unipc", marks=pytest.mark.exhaustive)],
)
def test_offsets_undo_what_the_denoiser_mishears(x64, solver, name):
    """To the last digits; without them the samples are others."""
    schedule, make = SCHEDULES[name], SOLVERS[solver]
    times = grids.uniform_logsnr(schedule, 10)
    ts = jnp.concatenate([times[2:-2], times[-1:]])  # clear of t_min and t_max, which t' keeps to
    x = schedule.sigma(ts[0]) * jax.random.normal(jax.random.key(0), (16, 2))
    offsets = jnp.full(len(ts) - 1, 0.5)

    def draw(denoiser, sampler):
        return jax.jit(lambda x: samplers.sample(jax.random.key(0), denoiser, sampler, x, ts))(x)

    wanted = draw(misheard(schedule, 0.0), make(schedule))
    shifted = samplers.decoupled(schedule, make, offsets)
    np.testing.assert_allclose(draw(misheard(schedule, 0.5), shifted), wanted, rtol=1e-7, atol=1e-9)
    assert np.abs(draw(misheard(schedule, 0.5), make(schedule)) - wanted).max() > 1e-2


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), ZERO_TERMINAL_SNR])
def test_no_offset_no_change(schedule):
    for t in grids.trailing(schedule, 5)[:-1]:
        assert shift_time(schedule, t, jnp.asarray(0.0)) == t


def test_times_stay_where_a_network_was_trained():
    schedule = SCHEDULES["edm"]
    for offset, end in ((-50.0, schedule.t_max), (50.0, schedule.t_min)):
        np.testing.assert_allclose(shift_time(schedule, 1.0, offset), end)


def error_on(schedule, denoiser, x, sampler, ts):
    """RMS to the fine solution."""
    fine = grids.karras(schedule, 200)
    wanted = samplers.sample(jax.random.key(0), denoiser, samplers.heun(schedule), x, fine)
    found = samplers.sample(jax.random.key(0), denoiser, sampler, x, ts)
    return float(jnp.sqrt(jnp.mean((found - wanted) ** 2)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["edm", "vp_linear"])
def test_learned_offsets_cut_the_error_of_learned_times(name):
    """At 6 calls of DPM++(2M), on noise that neither was learned from."""
    schedule = SCHEDULES[name]
    denoiser, sampler = exact_denoiser(TWO_MOONS, schedule), samplers.dpmpp_2m(schedule)
    x = prior_sample(jax.random.key(1), schedule, (512, 2))
    unseen = prior_sample(jax.random.key(99), schedule, (2048, 2))
    start = grids.karras(schedule, 6)

    @jax.jit
    def learn(x):
        fixed = denoiser, sampler, schedule, start, x
        times, _ = samplers.learn_grid(jax.random.key(0), *fixed, steps=200)
        return times, samplers.learn_decoupled_grid(jax.random.key(0), *fixed, steps=200)

    times, (ts, offsets, errors) = learn(x)
    assert np.all(np.diff(ts) < 0)
    assert (ts[0], ts[-1]) == (start[0], start[-1])
    assert errors[-1] < errors[0]
    shifted = samplers.decoupled(schedule, sampler, offsets)
    apart = error_on(schedule, denoiser, unseen, shifted, ts)
    assert apart < 0.7 * error_on(schedule, denoiser, unseen, sampler, times)


def test_offsets_of_another_grid_are_refused():
    schedule = SCHEDULES["edm"]
    sampler = samplers.decoupled(schedule, offsets=jnp.zeros(3))
    with pytest.raises(InputError, match="each of the 5 steps of the grid; got shape"):
        sampler.init(jnp.zeros((1, 1)), grids.karras(schedule, 5))
