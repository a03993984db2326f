"""The list of samplers: what it says of each is what the sampler does, and flags reach all."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import pytest
import test_ode_solvers
import test_samplers
import test_samplers_stochastic
import test_sde_solvers

from diffjax import grids, samplers, schedules
from diffjax.errors import InputError
from diffjax.run import flags, listing
from diffjax.samplers.info import sampler_info
from diffjax.types import AdaptiveSampler, Prediction, Sampler

SAMPLERS = flags.constructors(samplers, Sampler)
TAKEN = ("sampler", "steps")  # flags of sample.py
EDM = schedules.edm()
ADAPTIVE = flags.constructors(samplers, AdaptiveSampler)
TABLES = {
    "test_samplers.ODE": [make for make, _ in test_samplers.ODE.values()],
    "test_samplers_stochastic.STOCHASTIC": test_samplers_stochastic.STOCHASTIC.values(),
    "test_ode_solvers.SOLVERS": [make for make, _ in test_ode_solvers.SOLVERS.values()],
    "test_sde_solvers.ROWS": [row.make for row in test_sde_solvers.ROWS.values()],
    "test_sde_solvers.ADAPTIVE": test_sde_solvers.ADAPTIVE.values(),
}


def constructor_of(make):
    """The constructor in a row of a table."""
    return make.func if isinstance(make, partial) else make


def test_every_sampler_has_a_row():
    rows = {constructor_of(make) for table in TABLES.values() for make in table}
    missing = {name for name, make in (SAMPLERS | ADAPTIVE).items() if make not in rows}
    assert not missing, f"{missing} need a row in one of {', '.join(TABLES)}"


def test_every_sampler_is_described():
    for name, make in (SAMPLERS | ADAPTIVE).items():
        info = sampler_info(make)
        head = inspect.getdoc(make).split("\n")[0].replace("`", "")
        assert f": {info.paper}" in head, name
        assert (info.calls is None) == (name in ADAPTIVE), name
        assert name in listing.describe({name: make})


OPTIONS = [
    samplers.dpm_solver,
    partial(samplers.dpm_solver, order=2),
    partial(samplers.langevin, steps=3),
    partial(samplers.predictor_corrector, predictor=samplers.heun, corrector_steps=2),
    partial(samplers.restart, sampler=samplers.dpm_2, steps=3, repeats=1),
    partial(samplers.restart, sampler=samplers.euler_ancestral),
    partial(samplers.decoupled, sampler=samplers.heun),
]
COUNTED = list(SAMPLERS.values()) + OPTIONS


@pytest.mark.parametrize(
    "make",
    [
        samplers.heun,
        *(pytest.param(make, marks=pytest.mark.exhaustive) for make in COUNTED),
    ],
)
def test_calls_of_the_list_are_those_made(make):
    sampler, calls = make(EDM), sampler_info(make).calls
    for n in (1, 2, 3, 6):
        assert samplers.count_calls(sampler, grids.karras(EDM, n, 7.0, 0.1, 10.0)) == calls(n), n


@pytest.mark.parametrize("case", test_ode_solvers.SOLVERS)
def test_orders_of_the_list_are_those_measured(case):
    make, order = test_ode_solvers.SOLVERS[case]
    assert sampler_info(make)[0::3] == (order, False)


def test_an_option_may_name_another_sampler_and_is_renamed_where_it_must_be():
    shown = flags.options_of(samplers.restart, TAKEN).__signature__.parameters
    assert {"restart_sampler", "noise_min", "noise_max", "restart_steps", "repeats"} == set(shown)
    values = {name: p.default for name, p in shown.items()} | {"restart_sampler": "dpm_2"}
    options = flags.keywords(samplers.restart, values, SAMPLERS, TAKEN)
    assert options["sampler"] is samplers.dpm_2
    assert options["steps"] == 2
    with pytest.raises(InputError, match="Did you mean heun"):
        flags.keywords(samplers.restart, {"restart_sampler": "huen"}, SAMPLERS, TAKEN)


@pytest.mark.exhaustive
def test_a_constructor_stands_for_its_sampler():
    """In the combinators: the same numbers from the instance, the constructor and the default."""

    def denoiser(x, t, cond):
        return Prediction(jnp.tanh(x))

    x, ts = jnp.ones((2, 1)), grids.karras(EDM, 5)
    made = [
        samplers.predictor_corrector(EDM, samplers.reverse_diffusion(EDM)),
        samplers.predictor_corrector(EDM, samplers.reverse_diffusion),
        samplers.predictor_corrector(EDM),
    ]
    results = [samplers.sample(jax.random.key(0), denoiser, s, x, ts) for s in made]
    assert jnp.array_equal(results[0], results[1])
    assert jnp.array_equal(results[0], results[2])
    interval = samplers.RestartInterval(0.06, 0.3, 2, 2)  # on this schedule t is sigma/alpha
    one = samplers.restart(EDM, samplers.heun(EDM), [interval])
    results = [
        samplers.sample(jax.random.key(0), denoiser, s, x, ts) for s in (one, samplers.restart(EDM))
    ]
    assert jnp.allclose(*results, atol=1e-5)
