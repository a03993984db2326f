"""The list of samplers: what it says of each is what the sampler does, and flags reach all."""

import re

import jax
import jax.numpy as jnp
import pytest
from test_ode_solvers import SOLVERS

from diffjax import cli, grids, samplers, schedules
from diffjax.errors import InputError
from diffjax.types import AdaptiveSampler, Prediction, Sampler

SAMPLERS = cli.constructors(samplers, Sampler)
TAKEN = ("sampler", "steps")  # flags of sample.py
EDM = schedules.edm()
WANTED = [
    "euler",
    "heun",
    "dpm_2",
    "rk4",
    "lms",
    "plms",
    "dpm_solver",
    "dpmpp_2m",
    "dpmpp_2s",
    "dpmpp_multistep",
    "deis",
    "unipc",
    "amed",
    "euler_maruyama",
    "reverse_diffusion",
    "edm_stochastic",
    "euler_ancestral",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_2m_sde",
    "dpmpp_3m_sde",
    "sa_solver",
    "restart",
    "langevin",
    "predictor_corrector",
]


def test_flags_reach_every_sampler():
    assert set(WANTED) | {"ddim", "ancestral", "midpoint", "decoupled"} == set(SAMPLERS)
    adaptive = cli.constructors(samplers, AdaptiveSampler)
    assert set(adaptive) == {"adaptive_ode", "adaptive_sde"}
    assert {cli.facts(constructor).calls for constructor in adaptive.values()} == {"-"}


def said(name):
    """Calls in a run of n steps, as the list has them."""
    cell = cli.facts(SAMPLERS[name]).calls
    options = cli.options_of(SAMPLERS[name]).__signature__.parameters
    per_step, *others = (re.split(" (?:in|for) ", part) for part in cell.split(", "))
    per_step = per_step[0]
    per_step = int(per_step if per_step.isdigit() else options[per_step].default)

    def of_run(n):
        singular = {"last", "first"}
        change = [int(k) - per_step * (where.split()[1] in singular) for k, where in others]
        return n * per_step + sum(change)

    return of_run


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SAMPLERS)
def test_calls_of_the_list_are_those_made(name):
    sampler, of_run = SAMPLERS[name](EDM), said(name)
    for n in (3, 6):
        assert samplers.count_calls(sampler, grids.karras(EDM, n)) == of_run(n), n


@pytest.mark.parametrize("name", WANTED[:13])
def test_orders_of_the_list_are_those_measured(name):
    """`SOLVERS` has the orders that are measured, under name or name_order."""
    measured = [
        order for case, (_, order) in SOLVERS.items() if re.fullmatch(rf"{name}(_\d(_bh1)?)?", case)
    ]
    if name == "dpmpp_multistep":
        measured = [SOLVERS["dpmpp_2m"][1], SOLVERS["dpmpp_3m"][1]]
    assert float(cli.facts(SAMPLERS[name]).order[-1]) == max(measured)


def test_an_option_may_name_another_sampler_and_is_renamed_where_it_must_be():
    flags = cli.options_of(samplers.restart, TAKEN).__signature__.parameters
    assert {"restart_sampler", "noise_min", "noise_max", "restart_steps", "repeats"} == set(flags)
    values = {name: p.default for name, p in flags.items()} | {"restart_sampler": "dpm_2"}
    options = cli.keywords(samplers.restart, values, SAMPLERS, TAKEN)
    assert options["sampler"] is samplers.dpm_2
    assert options["steps"] == 2
    with pytest.raises(InputError, match="Did you mean heun"):
        cli.keywords(samplers.restart, {"restart_sampler": "huen"}, SAMPLERS, TAKEN)


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
