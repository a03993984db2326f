"""The loop: a sample depends on its key and index alone, and only new shapes compile."""

import inspect
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from oracles import (
    SCHEDULES,
    TWO_MOONS,
    ZERO_TERMINAL_SNR,
    exact_denoiser,
    gaussian,
    posterior_mean,
)

from diffjax import grids, guidance, samplers, schedules
from diffjax.diffusion import prior_sample
from diffjax.errors import InputError
from diffjax.parameterization import (
    edm_preconditioning,
    make_denoiser,
    predict_eps,
    predict_score,
    predict_v,
)
from diffjax.run import flags
from diffjax.types import Sampler

SCHEDULE = SCHEDULES["vp_linear"]
EXACT = exact_denoiser(TWO_MOONS, SCHEDULE)
N = 64


def mlp(params, x, c_noise, cond, key):
    hidden = jnp.tanh(x @ params["in"] + jnp.sin(c_noise / 100)[:, None])
    return hidden @ params["out"]


def small_network():
    keys = jax.random.split(jax.random.key(7))
    shapes = {"in": (2, 16), "out": (16, 2)}
    params = {
        name: jax.random.normal(key, shape) / 4
        for (name, shape), key in zip(shapes.items(), keys, strict=True)
    }
    return make_denoiser(mlp, params, SCHEDULE, predict_eps)


@partial(jax.jit, static_argnums=(0, 1))
def draw(denoiser, n, key, x, first=0):
    ts = grids.trailing(SCHEDULE, 5)
    return samplers.sample(key, denoiser, samplers.ancestral(SCHEDULE), x[:n], ts, first=first)


def noise(n, first=0):
    return prior_sample(jax.random.key(0), SCHEDULE, (n, 2), first)


DENOISERS = {"exact": (EXACT, 5e-7), "network": (small_network(), 1e-5)}
"""With the rounding that they allow: compilers contract a batch of one in another way."""


@pytest.mark.parametrize(("denoiser", "rtol"), DENOISERS.values(), ids=DENOISERS)
def test_same_sample_in_any_batch(denoiser, rtol):
    whole = draw(denoiser, N, jax.random.key(1), noise(N))
    assert len(np.unique(whole[:, 0])) == N
    for n in (1, 7):
        x = noise(n)
        np.testing.assert_array_equal(x, noise(N)[:n])
        part = draw(denoiser, n, jax.random.key(1), x)
        np.testing.assert_allclose(part, whole[:n], rtol=rtol, atol=rtol)
    rest = draw(denoiser, 7, jax.random.key(1), noise(7, first=7), first=7)
    np.testing.assert_allclose(rest, whole[7:14], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize(("denoiser", "rtol"), DENOISERS.values(), ids=DENOISERS)
def test_same_sample_on_any_devices(denoiser, rtol, devices):
    prior = jax.jit(noise, static_argnums=0)(N)
    whole = draw(denoiser, N, jax.random.key(1), prior)
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.jit(noise, static_argnums=0, out_shardings=sharding)(N)
    np.testing.assert_array_equal(x, prior)
    result = draw(denoiser, N, jax.random.key(1), x)
    assert len(result.sharding.device_set) == devices
    np.testing.assert_allclose(result, whole, rtol=rtol, atol=rtol)


def test_steps_get_different_noise():
    ts, x = grids.trailing(SCHEDULE, 5), noise(3)
    keep = samplers.ancestral(SCHEDULE)._replace(step=lambda z, d, x, t, s, state: (z[0], state))
    path = samplers.sample_path(jax.random.key(1), EXACT, keep, x, ts)
    assert len(np.unique(path)) == path.size


def test_path_ends_at_the_sample():
    sampler, ts, x = samplers.ancestral(SCHEDULE), grids.trailing(SCHEDULE, 5), noise(3)
    path = samplers.sample_path(jax.random.key(1), EXACT, sampler, x, ts)
    assert path.shape == (6, 3, 2)
    np.testing.assert_array_equal(path[0], x)
    whole = samplers.sample(jax.random.key(1), EXACT, sampler, x, ts)
    np.testing.assert_array_equal(path[-1], whole)
    np.testing.assert_array_equal(
        path[2], samplers.sample(jax.random.key(1), EXACT, sampler, x, ts[:3])
    )


@pytest.mark.exhaustive
def test_truncated_sample_is_the_mean_of_x0():
    sampler, x = samplers.ancestral(SCHEDULE), noise(3)
    ts = grids.trailing(SCHEDULE, 5)[:-1]
    x_t = samplers.sample(jax.random.key(1), EXACT, sampler, x, ts)
    mean = samplers.sample_truncated(jax.random.key(1), EXACT, sampler, x, ts)
    alpha, sigma = SCHEDULE.alpha(ts[-1]), SCHEDULE.sigma(ts[-1])
    np.testing.assert_allclose(mean, posterior_mean(TWO_MOONS, x_t, alpha, sigma), rtol=1e-5)
    assert not np.allclose(mean, x_t, atol=1e-2)


# --- compilation ------------------------------------------------------------------------


def test_only_another_number_of_steps_traces():
    """Two numbers of steps are two traces, whatever seed, grid, eta and scale."""

    def pair(x, t, cond):
        return small_network()(x + 0.01 * cond["label"][:, None], t, None)

    @jax.jit
    @chex.assert_max_traces(n=2)
    def run(key, x, ts, eta, scale):
        guided = guidance.classifier_free(pair, scale, {"label": 0})
        cond = {"label": jnp.ones(x.shape[0], int)}
        return samplers.sample(key, guided, samplers.ddim(SCHEDULE, eta), x, ts, cond)

    five, six = grids.trailing(SCHEDULE, 5), grids.trailing(SCHEDULE, 6)
    for seed, ts, eta, scale in [
        (0, five, 0.0, 1.0),
        (1, five, 0.0, 1.0),
        (0, grids.uniform_logsnr(SCHEDULE, 5), 0.0, 1.0),
        (0, five, 0.7, 1.0),
        (0, five, 0.0, 4.0),
        (0, six, 0.0, 1.0),
        (5, grids.karras(SCHEDULE, 6), 1.0, 2.0),
    ]:
        run(jax.random.key(seed), noise(4), ts, jnp.asarray(eta), jnp.asarray(scale))
    with pytest.raises(AssertionError, match="traced"):
        run(jax.random.key(0), noise(4), grids.trailing(SCHEDULE, 7), 0.0, 1.0)


# --- errors -----------------------------------------------------------------------------


BAD_GRIDS = {
    "increasing": [0.0, 0.5, 1.0],
    "repeated": [1.0, 1.0, 0.0],
    "nan": [1.0, np.nan, 0.0],
    "short": [1.0],
}


@pytest.mark.parametrize("loop", [samplers.sample, samplers.sample_path, samplers.sample_truncated])
@pytest.mark.parametrize("ts", BAD_GRIDS.values(), ids=BAD_GRIDS)
def test_bad_grid(ts, loop):
    with pytest.raises(InputError, match="a grid needs"), jax.debug_nans(False):
        loop(jax.random.key(0), EXACT, samplers.euler(SCHEDULE), noise(2), jnp.asarray(ts))


def test_two_dimensional_grid():
    sample = inspect.unwrap(samplers.sample)  # as users have it, without shape checks
    with pytest.raises(InputError, match="a grid needs"):
        sample(jax.random.key(0), EXACT, samplers.euler(SCHEDULE), noise(2), jnp.ones((1, 2)))


BAD_INPUTS = {
    "negative eta": (lambda: samplers.ddim(SCHEDULE, -0.1), "eta"),
    "eta of no number": (lambda: samplers.ddim(SCHEDULE, np.nan), "eta"),
    "variance": (lambda: samplers.ancestral(SCHEDULE, "medium"), "small, large, learned"),
    "beta of 0": (lambda: schedules.from_betas(np.array([0.1, 0.0])), "betas in"),
    "early beta of 1": (lambda: schedules.from_betas(np.array([1.0, 0.1])), "betas in"),
    "beta above 1": (lambda: schedules.from_betas(schedules.linear_betas(10)), "T > 20"),
    "nan beta": (lambda: schedules.from_betas(np.array([0.1, np.nan])), "betas in"),
    "no beta": (lambda: schedules.from_betas(np.array([])), "betas in"),
    "no steps": (lambda: grids.karras(SCHEDULE, 0), "at least 1 step"),
    "half a step": (lambda: inspect.unwrap(grids.trailing)(SCHEDULE, 2.5), "whole number of steps"),
    "no tolerance": (lambda: samplers.adaptive_sde(SCHEDULE, 0.0, 0.0), "tolerance"),
    "too many steps": (lambda: grids.leading(SCHEDULE, 11, T=10), "at most T = 10"),
    "linspace of T": (lambda: grids.linspace(SCHEDULE, 10, T=10), "at most"),
    "section": (lambda: grids.respaced(SCHEDULE, "6,1", T=10), "cannot keep 6"),
    "stride": (lambda: grids.respaced(SCHEDULE, "ddim9", T=10), "stride"),
    "infinite": (lambda: grids.karras(ZERO_TERMINAL_SNR, 5), "trailing"),
    "infinite logsnr": (lambda: grids.uniform_logsnr(ZERO_TERMINAL_SNR, 5), "trailing"),
}


@pytest.mark.parametrize(("call", "says"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input(call, says):
    with pytest.raises(InputError, match=says):
        call()


@pytest.mark.parametrize("loop", [samplers.sample, samplers.sample_path, samplers.sample_truncated])
@pytest.mark.parametrize("predicts", [predict_eps, predict_score, edm_preconditioning(0.5)])
def test_a_network_that_is_not_finite_at_zero_snr(loop, predicts):
    """Refused at the first time of a known grid, though compiled; it is fine below."""
    params = {"in": jnp.ones((2, 4)), "out": jnp.ones((4, 2))}
    ts, sampler = grids.trailing(ZERO_TERMINAL_SNR, 3)[:-1], samplers.euler(ZERO_TERMINAL_SNR)

    def run(params, ts):
        denoiser = make_denoiser(mlp, params, ZERO_TERMINAL_SNR, predicts)
        return loop(jax.random.key(0), denoiser, sampler, noise(2), ts)

    with pytest.raises(InputError, match="predicts v, x0"):
        jax.jit(partial(run, ts=ts))(params)
    assert jnp.all(jnp.isfinite(jax.jit(partial(run, ts=ts[1:]))(params)))


def test_a_network_of_v_is_finite_at_zero_snr():
    denoiser = make_denoiser(lambda p, x, *rest: x, None, ZERO_TERMINAL_SNR, predict_v)
    ts, sampler = grids.trailing(ZERO_TERMINAL_SNR, 3), samplers.heun(ZERO_TERMINAL_SNR)
    assert jnp.all(
        jnp.isfinite(samplers.sample(jax.random.key(0), denoiser, sampler, noise(2), ts))
    )


# --- what a loop is given ---------------------------------------------------------------

DETERMINISTIC = [samplers.heun, samplers.ddim, partial(samplers.euler_ancestral, eta=0.0)]
RANDOM = [samplers.ancestral, samplers.dpmpp_sde, partial(samplers.ddim, eta=0.5)]


def encoded(make, ts):
    return samplers.encode(EXACT, make(SCHEDULE), noise(2), ts)


@pytest.mark.parametrize("make", RANDOM)
def test_encode_refuses_a_sampler_whose_draws_count(make):
    with pytest.raises(InputError, match="deterministic sampler"):
        encoded(make, grids.karras(SCHEDULE, 4)[:-1])


@pytest.mark.parametrize("make", DETERMINISTIC)
def test_encode_refuses_clean_data(make):
    ts = grids.karras(SCHEDULE, 4)
    with pytest.raises(InputError, match="ends above clean data"):
        encoded(make, ts)
    assert jnp.all(jnp.isfinite(encoded(make, ts[:-1])))

    def blind(ts):
        jax.block_until_ready(jax.jit(partial(encoded, make))(ts))
        jax.effects_barrier()

    with jax.debug_nans(False), pytest.warns(RuntimeWarning, match="not finite"):
        blind(ts)


@pytest.mark.parametrize(
    "ts", [[999.0, 500.0, 0.0], [1.0, 0.5, -1.0]], ids=["steps", "below clean"]
)
def test_times_beyond_the_schedule_are_refused(ts):
    with pytest.raises(InputError, match="times must be at"):
        samplers.sample(
            jax.random.key(0), EXACT, samplers.euler(SCHEDULE), noise(2), jnp.asarray(ts)
        )


TYPED = [samplers.euler, samplers.unipc, samplers.dpmpp_sde, samplers.sa_solver]


def in_dtype(make, dtype):
    x, ts = noise(2).astype(dtype), grids.karras(SCHEDULE, 3)
    loops = samplers.sample, samplers.sample_path, samplers.sample_truncated
    grids_of = ts, ts, ts[:-1]
    return [
        loop(jax.random.key(0), EXACT, make(SCHEDULE), x, ts)
        for loop, ts in zip(loops, grids_of, strict=True)
    ]


def check_dtype(make, dtype):
    wanted = in_dtype(make, jnp.zeros(()).dtype)
    for found, exact in zip(in_dtype(make, dtype), wanted, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, float), exact, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("make", TYPED[:1])
def test_x_of_any_precision(make):
    """The result has x's dtype, and is that of the default precision but for rounding x."""
    check_dtype(make, jnp.bfloat16)


@pytest.mark.exhaustive
@pytest.mark.parametrize("make", flags.constructors(samplers, Sampler).values())
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_every_sampler_in_every_precision(make, dtype):
    found = in_dtype(make, dtype)
    assert {a.dtype for a in found} == {jnp.dtype(dtype)}
    assert all(jnp.all(jnp.isfinite(a)) for a in found)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", flags.constructors(samplers, Sampler).values())
def test_every_sampler_in_single_precision_under_x64(make):
    assert {a.dtype for a in in_dtype(make, jnp.float32)} == {jnp.dtype("float32")}


def test_bytes_are_refused():
    x = jnp.zeros((2, 2), jnp.uint8)
    with pytest.raises(InputError, match="real numbers"):
        samplers.sample(
            jax.random.key(0), EXACT, samplers.euler(SCHEDULE), x, grids.karras(SCHEDULE, 3)
        )


# --- a time that is repeated -----------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        *(samplers.lms, samplers.deis, samplers.dpmpp_2m, samplers.unipc, samplers.plms),
        *(partial(samplers.dpmpp_2m_sde, eta=0.0), partial(samplers.dpmpp_3m_sde, eta=0.0)),
        partial(samplers.sa_solver, tau=0.0),
    ],
)
def test_a_repeated_time_in_a_traced_grid_is_no_step(make):
    """The path on t0 t1 t1 t2 t3 t3 t4 is that on t0 t1 t2 t3 t4, standing still twice."""
    ts = grids.trailing(SCHEDULE, 5)
    index = np.array([0, 1, 1, 2, 3, 3, 4, 5, 5])

    @jax.jit
    def path(ts):
        sampler = make(SCHEDULE)
        return samplers.sample_path(jax.random.key(0), EXACT, sampler, noise(4), ts)

    np.testing.assert_allclose(path(ts[index]), path(ts)[index], atol=1e-5)


@pytest.mark.parametrize("make", [samplers.ddim, samplers.euler_ancestral])
def test_draws_of_weight_zero_are_not_made(make):
    """A known 0 gives what a traced 0 gives, by a program without random bits."""
    schedule = schedules.vp_cosine()
    x, ts = jnp.linspace(-2, 2, 6).reshape(3, 2), grids.uniform_logsnr(schedule, 5)
    denoiser = exact_denoiser(gaussian([0.3, -0.2], 0.8), schedule)

    def known(key, eta):
        return samplers.sample(key, denoiser, make(schedule, 0.0), x, ts)

    def traced(key, eta):
        return samplers.sample(key, denoiser, make(schedule, eta), x, ts)

    programs = [str(jax.make_jaxpr(f)(jax.random.key(0), 0.0)) for f in (known, traced)]
    bits = [any(word in text for word in ("threefry", "shift_right_logical")) for text in programs]
    assert bits == [False, True]
    drawn = [jax.jit(f)(jax.random.key(0), 0.0) for f in (known, traced)]
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-6)
