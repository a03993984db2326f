"""Schedules: their inverse, their precision, and the numbers that the papers give."""

from fractions import Fraction
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, ZERO_TERMINAL_SNR

from diffjax import schedules
from diffjax.errors import InputError
from diffjax.schedules import clean_time, logsnr

ALL = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
VP = pytest.mark.parametrize(
    "schedule",
    [SCHEDULES[name] for name in SCHEDULES if name != "edm"],
    ids=[name for name in SCHEDULES if name != "edm"],
)
TABLES = {
    "linear": schedules.linear_betas,
    "cosine": schedules.cosine_betas,
    "scaled_linear": schedules.scaled_linear_betas,
    "sigmoid": schedules.sigmoid_betas,
}


def times(schedule, n=301):
    return jnp.linspace(schedule.t_min, schedule.t_max, n)


@VP
def test_variance_preserving(schedule):
    t = jnp.append(times(schedule), clean_time(schedule))
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, atol=3e-7)


@ALL
def test_noise_grows(schedule):
    assert np.all(np.diff(logsnr(schedule, times(schedule))) < 0)


@ALL
@pytest.mark.parametrize(("double", "rtol"), [(True, 1e-9), (False, 2e-5)])
def test_inverse(schedule, double, rtol):
    with jax.enable_x64(double):
        t = times(schedule)
        # Where alpha is 1 to single precision (and not in sigma), t is still known.
        np.testing.assert_allclose(schedule.t_from_logsnr(logsnr(schedule, t)), t, rtol=rtol)
        # Exact in both precisions, or a grid would not end at clean data.
        assert clean_time(schedule) == 0
        assert schedule.sigma(clean_time(schedule)) == 0
        assert schedule.alpha(clean_time(schedule)) == 1


@ALL
def test_single_precision(schedule):
    """sigma and logsnr keep their digits where 1 - alpha^2 would have lost them."""
    low = times(schedule)
    single = schedule.sigma(low), logsnr(schedule, low)
    with jax.enable_x64(True):
        t = jnp.asarray(np.asarray(low), float)
        np.testing.assert_allclose(single[0], schedule.sigma(t), rtol=1e-5)
        np.testing.assert_allclose(single[1], logsnr(schedule, t), atol=2e-3)
        np.testing.assert_allclose(single[1][:150], logsnr(schedule, t)[:150], atol=3e-5)


@ALL
def test_gradients_are_finite(schedule):
    @jax.jit
    def slopes(t):
        inverse = jax.vmap(jax.grad(schedule.t_from_logsnr))(logsnr(schedule, t[1:-1]))
        return *(jax.vmap(jax.grad(f))(t) for f in (schedule.alpha, schedule.sigma)), inverse

    alpha, sigma, inverse = slopes(times(schedule))
    assert np.all(np.isfinite(alpha))
    assert np.all(np.isfinite(sigma))
    assert np.all(inverse < 0)


# --- published numbers ------------------------------------------------------------------


def test_ddpm_ends_at_4e_5():
    """Ho et al. 2020, section 4: the signal left is 4e-5; here with exact fractions."""
    betas = [Fraction(1, 10000) + Fraction(k, 999) * Fraction(199, 10000) for k in range(1000)]
    alpha_bar = float(reduce(lambda product, beta: product * (1 - beta), betas, Fraction(1)))
    assert alpha_bar == pytest.approx(4.04e-5, rel=1e-2)
    with jax.enable_x64(True):
        assert SCHEDULES["linear"].alpha(jnp.asarray(1.0)) ** 2 == pytest.approx(
            alpha_bar, rel=1e-10
        )


@pytest.mark.usefixtures("x64")
def test_cosine_table_is_the_cosine():
    t = jnp.arange(1, 990) / 1000  # beyond, betas are capped
    cosine = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(SCHEDULES["cosine"].alpha(t) ** 2, cosine, rtol=1e-9)
    np.testing.assert_allclose(SCHEDULES["vp_cosine"].alpha(t) ** 2, cosine, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_score_sde_is_the_limit_of_its_table():
    """Song et al. 2021, appendix B: beta_k = beta(k/T)/T, T -> infinity; the error halves."""
    t = jnp.asarray([0.1, 0.5, 1.0])
    exact = logsnr(schedules.vp_linear(0.1, 20.0), t)
    errors = []
    for T in (2000, 4000):
        k = np.arange(1, T + 1) / T
        table = schedules.from_betas((0.1 + k * 19.9) / T)
        errors.append(np.abs(logsnr(table, t) - exact))
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.02)
    assert np.all(errors[1] < 0.03)


@pytest.mark.usefixtures("x64")
def test_latent_diffusion_table():
    """Rombach et al. 2022 in the numbers that its checkpoints carry: sigma/alpha up to 14.6146."""
    schedule = SCHEDULES["scaled_linear"]
    r = jnp.exp(-logsnr(schedule, jnp.asarray([0.001, 1.0])) / 2)
    np.testing.assert_allclose(r, [0.0292, 14.6146], rtol=0, atol=5e-5)


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_fewer_steps_same_process(make):
    """Scaled tables have nearly the SNRs of the full one at the same t."""
    with jax.enable_x64(True):
        t = jnp.linspace(0.1, 0.9, 9)
        few, many = (logsnr(schedules.from_betas(make(T)), t) for T in (100, 1000))
        np.testing.assert_allclose(few, many, rtol=0.1, atol=0.1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_exact_on_the_grid(make):
    betas = make(50)
    schedule = schedules.from_betas(betas)
    alpha_bar = np.asarray(schedule.alpha(jnp.arange(51) / 50)) ** 2
    np.testing.assert_allclose(1 - alpha_bar[1:] / alpha_bar[:-1], betas, rtol=1e-10)
    # In between beta is constant: half a step leaves the root of a step's signal.
    middle = schedule.alpha((jnp.arange(50) + 0.5) / 50) ** 2
    np.testing.assert_allclose(middle, np.sqrt(alpha_bar[1:] * alpha_bar[:-1]), rtol=1e-10)


# --- zero terminal SNR ------------------------------------------------------------------


@pytest.mark.parametrize("double", [True, False])
def test_zero_terminal_snr(double):
    with jax.enable_x64(double):
        schedule, end = ZERO_TERMINAL_SNR, jnp.asarray(1.0)
        assert schedule.alpha(end) == 0
        assert schedule.sigma(end) == 1
        assert logsnr(schedule, end) == -jnp.inf
        first = jnp.asarray(0.001)
        np.testing.assert_allclose(
            logsnr(schedule, first), logsnr(SCHEDULES["linear"], first), rtol=1e-5
        )


@pytest.mark.parametrize("compiled", [jax.jit, lambda f: f])
def test_the_logsnr_of_pure_noise_is_infinite_compiled_or_not(compiled):
    """XLA turns log(exp(a)) into a: a finite log-SNR made DEIS's weights NaN."""
    found = compiled(lambda t: logsnr(ZERO_TERMINAL_SNR, t))(jnp.asarray([0.5, 1.0]))
    assert np.isfinite(found[0])
    assert found[1] == -jnp.inf


@pytest.mark.usefixtures("x64")
def test_zero_terminal_snr_is_an_affine_map():
    """Of sqrt(alpha_bar), and one that keeps the first: Lin et al. 2024, Alg. 1."""
    t = jnp.arange(1, 1001) / 1000
    new, old = ZERO_TERMINAL_SNR.alpha(t), SCHEDULES["linear"].alpha(t)
    slope = np.diff(new) / np.diff(old)
    np.testing.assert_allclose(slope, slope[0], rtol=1e-4)
    assert new[0] == pytest.approx(float(old[0]), rel=1e-12)


def test_precision_is_that_of_the_moment():
    """A schedule first traced in single precision is exact again in double."""
    betas = np.linspace(0.01, 0.1, 10)
    schedule = schedules.from_betas(betas)
    jax.jit(schedule.alpha)(jnp.asarray(0.5))
    with jax.enable_x64(True):
        first = schedule.alpha(jnp.asarray(0.1)) ** 2
        np.testing.assert_allclose(first, 1 - betas[0], rtol=1e-12)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (schedules.vp_linear, {"t_min": (1.0, 2.5, -1.0, NAN), "beta_max": (INF, 1e9, NAN)}),
        (schedules.sub_vp, {"t_min": (1.0, INF), "beta_min": (0.0, NAN), "beta_max": (INF,)}),
        (schedules.vp_cosine, {"t_min": (1.0, NAN), "t_max": (1.5, 0.0), "offset": (-1.0, NAN)}),
        (schedules.gvp, {"t_min": (1.0, NAN, -INF)}),
        (schedules.rectified_flow, {"t_min": (-1.0, 1.0, 2.5, NAN)}),
        (schedules.laplace, {"t_min": (1.0, INF), "mean": (NAN, INF), "scale": (0.0, INF)}),
        (schedules.ve, {"sigma_max": (INF, NAN, 0.001), "sigma_min": (0.0, NAN)}),
        (schedules.edm, {"sigma_max": (INF, NAN, 0.001), "sigma_min": (0.0, NAN)}),
    ],
)
def test_numbers_that_are_no_schedule_are_refused(make, numbers):
    for name, values in numbers.items():
        for value in values:
            with pytest.raises(InputError, match=str(value)):
                make(**{name: value})
