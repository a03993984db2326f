"""New noise processes against their published SDEs, their inverses, and exact identities."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, TWO_MOONS, drive, exact_denoiser, gaussian
from scipy import stats

from diffjax import diffusion, grids, samplers, schedules, weighting
from diffjax.errors import InputError
from diffjax.models import MonotoneLogSNR
from diffjax.parameterization import (
    edm_preconditioning,
    make_denoiser,
    predict_score,
    predict_velocity,
)
from diffjax.schedules import clean_time, logsnr

NETWORK = MonotoneLogSNR(width=16)
VARIABLES = NETWORK.init(jax.random.key(0), jnp.zeros(2))


def learned(params=VARIABLES["params"]):
    return schedules.learned_vp(lambda t: NETWORK.apply({"params": params}, t))


def compiled(schedule):
    """The same with its functions compiled: bisection by single operations is slow."""
    alpha, sigma, inverse = map(jax.jit, schedule[:3])
    return schedule._replace(alpha=alpha, sigma=sigma, t_from_logsnr=inverse)


NEW = {
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "rectified_flow": schedules.rectified_flow(),
    "gvp": schedules.gvp(),
    "laplace": schedules.laplace(0.3, 0.7),
    "learned_vp": compiled(learned()),
    "shifted table": schedules.shifted(SCHEDULES["linear"], 1 / 4),
    "shifted flow": schedules.shifted(schedules.rectified_flow(), 1 / 3),
}
ALL = pytest.mark.parametrize("schedule", NEW.values(), ids=NEW)
# alpha is exactly 0 at t_max
TO_NOISE = {"rectified_flow", "gvp", "laplace", "shifted flow"}
VARIANCE_PRESERVING = {"gvp", "laplace", "learned_vp", "shifted table"}


def inner(schedule, n=101):
    """Times of [t_min, t_max] without the ends."""
    return jnp.linspace(schedule.t_min, schedule.t_max, n + 2)[1:-1]


def rates(schedule, t):
    return diffusion.drift(schedule, t), diffusion.diffusion_squared(schedule, t)


# --- schedules --------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize(("double", "rtol"), [(True, 1e-8), (False, 5e-5)])
def test_inverse(schedule, double, rtol):
    with jax.enable_x64(double):
        t = inner(schedule)
        assert np.all(np.diff(logsnr(schedule, t)) < 0)
        back = schedule.t_from_logsnr(logsnr(schedule, t))
        np.testing.assert_allclose(back, t, rtol=rtol, atol=rtol / 100)


@ALL
@pytest.mark.parametrize("double", [True, False])
def test_ends_are_exact(schedule, double, request):
    name = request.node.callspec.id.removesuffix(f"-{double}").removeprefix(f"{double}-")
    with jax.enable_x64(double):
        clean = clean_time(schedule)
        assert clean == (-jnp.inf if name in ("ve", "learned_vp") else 0)
        assert schedule.sigma(clean) == 0
        assert schedule.alpha(clean) == 1
        assert logsnr(schedule, clean) == jnp.inf
        end = jnp.asarray(schedule.t_max)
        if name in TO_NOISE:
            assert schedule.alpha(end) == 0
            assert schedule.sigma(end) == 1
            assert schedule.t_from_logsnr(jnp.asarray(-jnp.inf)) == end
        else:
            assert np.isfinite(logsnr(schedule, end))


@ALL
def test_single_precision(schedule):
    low = inner(schedule)
    single = schedule.sigma(low), logsnr(schedule, low)
    with jax.enable_x64(True):
        t = jnp.asarray(np.asarray(low), float)
        np.testing.assert_allclose(single[0], schedule.sigma(t), rtol=2e-5)
        np.testing.assert_allclose(single[1], logsnr(schedule, t), atol=2e-3)


@ALL
def test_grids_end_clean(schedule):
    """Whatever the clean time: decreasing, from t_max, to sigma 0; and t_max has its limits."""
    for ts in (grids.trailing(schedule, 10), grids.leading(schedule, 10)):
        assert np.all(np.diff(ts) < 0)
        assert schedule.sigma(ts[-1]) == 0
    if jnp.isinf(logsnr(schedule, schedule.t_max)):
        with pytest.raises(InputError, match="trailing"):
            grids.karras(schedule, 10)
    else:
        for ts in (grids.karras(schedule, 10), grids.uniform_logsnr(schedule, 10)):
            assert np.all(np.diff(ts) < 0)
            np.testing.assert_allclose(ts[0], schedule.t_max, rtol=1e-5)
            np.testing.assert_allclose(ts[-2], schedule.t_min, atol=1e-5)
            assert schedule.sigma(ts[-1]) == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", sorted(VARIANCE_PRESERVING))
def test_variance_preserving_and_its_sde(name):
    """alpha^2 + sigma^2 = 1, and then g^2 = -2 f: the stationary distribution is N(0, I)."""
    schedule = NEW[name]
    t = inner(schedule)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, rtol=1e-12)
    f, g_squared = rates(schedule, t)
    np.testing.assert_allclose(g_squared, -2 * f, rtol=1e-8)


@ALL
def test_the_transition_is_that_of_the_sde(schedule):
    """Over a short interval q(x_t | x_s) has the scale 1 + f dt and the variance g^2 dt."""
    with jax.enable_x64(True):
        t = inner(schedule, 9)
        width = 1e-6
        f, g_squared = rates(schedule, t)
        scale, variance = diffusion.transition(schedule, t + width / 2, t - width / 2)
        np.testing.assert_allclose((scale - 1) / width, f, rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(variance / width, g_squared, rtol=1e-4)


def beta(t, low=0.1, high=20.0):
    return low + t * (high - low)


# drift f and diffusion g^2 as printed. Song et al. 2021, Eq. 30, 32 and 34-35 (VE, VP,
# sub-VP); the flows from f = alpha'/alpha: Ma et al. 2024; Hang et al. 2024 by Eq. 19 of VDM.
PUBLISHED = {
    "vp": (SCHEDULES["vp_linear"], lambda t: -beta(t) / 2, beta),
    "sub_vp": (
        NEW["sub_vp"],
        lambda t: -beta(t) / 2,
        lambda t: beta(t) * (1 - np.exp(-2 * (0.1 * t + 19.9 * t**2 / 2))),
    ),
    "ve": (NEW["ve"], lambda t: 0 * t, lambda t: (0.01 * 5000**t) ** 2 * 2 * np.log(5000)),
    "edm": (SCHEDULES["edm"], lambda t: 0 * t, lambda t: 2 * t),
    "rectified_flow": (NEW["rectified_flow"], lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t)),
    "gvp": (
        NEW["gvp"],
        lambda t: -np.pi / 2 * np.tan(np.pi * t / 2),
        lambda t: np.pi * np.tan(np.pi * t / 2),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("schedule", "f", "g_squared"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_sde(schedule, f, g_squared):
    t = jnp.linspace(0.02, 0.98, 25)
    ours = rates(schedule, t)
    np.testing.assert_allclose(ours[0], f(np.asarray(t)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours[1], g_squared(np.asarray(t)), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_sub_vp_has_the_mean_of_vp_and_less_noise():
    """Song et al. 2021, section 3.4; both reach N(0, I)."""
    vp, sub = schedules.vp_linear(), schedules.sub_vp()
    t = inner(vp)
    np.testing.assert_allclose(sub.alpha(t), vp.alpha(t), rtol=1e-14)
    np.testing.assert_allclose(sub.sigma(t), vp.sigma(t) ** 2, rtol=1e-12)
    assert sub.sigma(jnp.asarray(1.0)) == pytest.approx(1, abs=1e-4)


@pytest.mark.usefixtures("x64")
def test_ve_is_geometric():
    """Song & Ermon 2019: a constant ratio of noise levels, between the two that were given."""
    sigma = NEW["ve"].sigma(jnp.linspace(0, 1, 11))
    np.testing.assert_allclose(sigma[1:] / sigma[:-1], 5000**0.1, rtol=1e-12)
    np.testing.assert_allclose([sigma[0], sigma[-1]], [0.01, 50.0], rtol=1e-12)
    with pytest.raises(InputError, match="sigma_min < sigma_max"):
        schedules.ve(2.0, 1.0)


@pytest.mark.usefixtures("x64")
def test_laplace_quantiles():
    """log-SNR of uniform t is Laplace distributed; t is its survival function."""
    t = jnp.linspace(1e-6, 1 - 1e-6, 99)
    np.testing.assert_allclose(
        logsnr(NEW["laplace"], t), stats.laplace.isf(t, 0.3, 0.7), rtol=1e-8, atol=1e-9
    )


# --- shifts -----------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name", ["cosine", "vp_linear", "edm", "sub_vp", "ve", "rectified_flow", "gvp"]
)
def test_shift_is_of_the_log_snr_alone(name):
    base = (SCHEDULES | NEW)[name]
    t = inner(base, 20)
    for ratio in (0.25, 3.0):
        schedule = schedules.shifted(base, ratio)
        moved = logsnr(schedule, t) - logsnr(base, t)
        np.testing.assert_allclose(moved, 2 * np.log(ratio), rtol=1e-8)
        back = schedules.shifted(schedule, 1 / ratio)
        np.testing.assert_allclose(back.alpha(t), base.alpha(t), rtol=1e-8)
        np.testing.assert_allclose(back.sigma(t), base.sigma(t), rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_shift_keeps_the_curve():
    """A shifted schedule goes along its base's (alpha, sigma), at another speed."""
    for base in (NEW["sub_vp"], NEW["rectified_flow"], NEW["ve"], NEW["gvp"], SCHEDULES["edm"]):
        schedule = schedules.shifted(base, 0.5)
        t = inner(base, 20)
        u = base.t_from_logsnr(logsnr(schedule, t))
        np.testing.assert_allclose(schedule.alpha(t), base.alpha(u), rtol=1e-9)
        np.testing.assert_allclose(schedule.sigma(t), base.sigma(u), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_shifted_edm_is_edm_with_scaled_times():
    """alpha stays 1, and half the signal to noise is twice the noise."""
    schedule, t = schedules.shifted(SCHEDULES["edm"], 0.5), jnp.asarray([0.1, 1.0, 7.0])
    np.testing.assert_array_equal(schedule.alpha(t), 1)
    np.testing.assert_allclose(schedule.sigma(t), 2 * t, rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_timestep_shift_of_sd3():
    """Esser et al. 2024, Eq. 23: t' = s t / (1 + (s - 1) t) is the shift with ratio 1/s."""
    t = jnp.linspace(0, 1, 41)
    for shift in (1.0, 3.0, 6.0):
        schedule = schedules.shifted(schedules.rectified_flow(), 1 / shift)
        moved = shift * t / (1 + (shift - 1) * t)
        np.testing.assert_allclose(schedule.sigma(t), moved, rtol=1e-13)
        np.testing.assert_allclose(schedule.alpha(t), 1 - moved, rtol=1e-12, atol=1e-15)
        assert schedule.alpha(t[-1]) == 0
        assert schedule.sigma(t[0]) == 0


def test_shift_needs_a_structure():
    odd = schedules.rectified_flow()._replace(sigma=lambda t: 3 * t**2)
    with pytest.raises(InputError, match="norm"):
        schedules.shifted(odd, 2.0)
    with pytest.raises(InputError, match="positive"):
        schedules.shifted(schedules.gvp(), 0.0)
    # The same with a norm given, here of a base that is traced.
    traced = jax.jit(lambda r: schedules.shifted(learned(), r, jnp.hypot).alpha(jnp.asarray(0.7)))
    ratio = traced(2.0) ** 2 / (1 - traced(2.0) ** 2)
    base = logsnr(learned(), 0.7)
    np.testing.assert_allclose(jnp.log(ratio), base + 2 * np.log(2.0), rtol=1e-4)


# --- a learned schedule -----------------------------------------------------------------


def test_network_is_monotone_with_trained_ends():
    t = jnp.linspace(0, 1, 501)
    for seed in range(4):
        params = NETWORK.init(jax.random.key(seed), t)["params"]
        values = NETWORK.apply({"params": params}, t)
        assert np.all(np.diff(values) < 0)
        np.testing.assert_allclose(values[jnp.asarray([0, -1])], [13.3, -5.0], rtol=1e-5)
        # An end moves with its parameter, and the inside with every other.
        ends = NETWORK.apply({"params": params | {"stop": jnp.asarray(-7.0)}}, t)
        np.testing.assert_allclose(ends[-1], -7.0, rtol=1e-5)
        np.testing.assert_allclose(ends[0], values[0], rtol=1e-5)
    grid = NETWORK.apply(VARIABLES, t[:6].reshape(2, 3))
    np.testing.assert_allclose(grid.ravel(), NETWORK.apply(VARIABLES, t[:6]), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_learned_line_has_exact_answers():
    """logsnr = 10 - 15 t: times, their slope, and the continuation beyond both ends."""
    schedule = schedules.learned_vp(lambda t: 10 - 15 * t)
    values = jnp.asarray([12.0, 10.0, 4.0, -5.0, -6.0])
    exact = [-2.0, 0.0, 0.4, 1.0, 2.0]
    np.testing.assert_allclose(schedule.t_from_logsnr(values), exact, atol=1e-12)
    assert jax.grad(schedule.t_from_logsnr)(4.0) == pytest.approx(-1 / 15, rel=1e-12)
    np.testing.assert_allclose(logsnr(schedule, jnp.asarray([-2.0, 0.4])), [12.0, 4.0], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_derivative_in_the_parameters():
    """t at a given log-SNR moves with the parameters as finite differences say."""
    params = jax.tree.map(lambda a: jnp.asarray(a, float), VARIABLES["params"])

    @jax.jit
    def time(bump):
        moved = params | {"second": params["second"] + bump, "start": params["start"] + bump}
        return learned(moved).t_from_logsnr(jnp.asarray(2.0))

    numeric = (time(1e-5) - time(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(time)(0.0), numeric, rtol=1e-6)
    assert abs(numeric) > 1e-4


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_elbo_depends_on_the_ends_of_the_schedule_alone():
    """Kingma et al. 2021, Eq. 18: the diffusion loss is an integral over SNR, whatever the path.

    Of N(0, s^2) it is the integral of half the variance 1/(1/s^2 + SNR) over SNR,
    log((1 + s^2 SNR_max)/(1 + s^2 SNR_min))/2.
    """
    s, ends = 0.5, np.exp([-4.0, 6.0])
    exact = np.log((1 + s**2 * ends[1]) / (1 + s**2 * ends[0])) / 2
    values = VARIABLES["params"] | {"start": jnp.asarray(6.0), "stop": jnp.asarray(-4.0)}
    line = schedules.learned_vp(lambda t: 6.0 - 10.0 * t)
    for schedule in (compiled(learned(values)), line):
        t = (jnp.arange(4000) + 0.5) / 4000
        level = logsnr(schedule, t)
        variance = 1 / (s**-2 + jnp.exp(level))
        value = jnp.mean(weighting.elbo_weight(schedule)(level) * variance)
        np.testing.assert_allclose(value, exact, rtol=1e-4)


# --- samplers over any process ----------------------------------------------------------


EDM = SCHEDULES["edm"]


@cache
def heun_of(schedule):
    return samplers.heun(schedule), exact_denoiser(TWO_MOONS, schedule)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
@ALL
def test_sampler_of_every_schedule_is_that_of_edm(schedule):
    """x/alpha of Heun at given noise levels is the same in every process."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 2))) * np.exp(1.0)
    levels = jnp.linspace(-2.0, 2.0, 6)
    results = []
    for process in (EDM, schedule):
        ts = process.t_from_logsnr(jnp.append(levels, jnp.inf))
        sampler, denoiser = heun_of(process)
        results.append(drive(sampler, denoiser, process.alpha(ts[0]) * x, ts)[0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["ve", "laplace", "shifted table"])
def test_samples_of_a_gaussian(name):
    """The reverse SDE from the prior at the noisy end to the clean time, both included."""
    schedule = NEW[name]
    denoiser = exact_denoiser(gaussian([0.2, 0.2], 0.5), schedule)
    ts = schedule.t_from_logsnr(jnp.append(jnp.linspace(-9.0, 7.0, 80), jnp.inf))
    ts = jnp.minimum(ts, schedule.t_max)
    ts = ts[jnp.append(True, jnp.diff(ts) < 0)]
    if jnp.isinf(logsnr(schedule, schedule.t_max)):
        ts = jnp.append(jnp.asarray([schedule.t_max]), ts)
    keys = jax.random.split(jax.random.key(0))
    x = diffusion.prior_sample(keys[0], schedule, (2000, 2), t=ts[0])
    sampler = samplers.euler_maruyama(schedule)
    x0 = jax.jit(lambda x: samplers.sample(keys[1], denoiser, sampler, x, ts))(x)
    np.testing.assert_allclose(x0.mean(), 0.2, atol=0.06)
    np.testing.assert_allclose(x0.std(), 0.5, rtol=0.06)


# --- parameterizations ------------------------------------------------------------------

X = jnp.asarray(np.random.default_rng(1).standard_normal((6, 2)), jnp.float32)
SAYS = {
    "score": (predict_score, diffusion.score_from_x0),
    "velocity": (predict_velocity, diffusion.velocity_from_x0),
}


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("predicts", "says"), SAYS.values(), ids=SAYS)
@pytest.mark.parametrize("name", ["vp_linear", *NEW])
def test_same_denoiser(name, predicts, says):
    """A network that knows the score or the velocity is the exact denoiser."""
    schedule = (SCHEDULES | NEW)[name]
    x, t = X.astype(float), jnp.linspace(0.2, 0.9, 6)
    x0 = exact_denoiser(TWO_MOONS, schedule)(x, t, None).x0

    def network(params, x_in, c_noise, cond, key):
        np.testing.assert_allclose(c_noise, 1000 * t)
        return says(schedule, x, t, x0)

    denoiser = make_denoiser(network, None, schedule, predicts)
    np.testing.assert_allclose(denoiser(x, t, None).x0, x0, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["rectified_flow", "gvp", "shifted flow"])
def test_velocity_is_finite_at_pure_noise(name):
    """At t = 1 the exact velocity E[alpha' x0 + sigma' eps] gives back the mean of the data."""
    schedule, t, mean = NEW[name], jnp.asarray(1.0), jnp.asarray([[0.3, -0.8]])
    rate = jax.grad(schedule.alpha)(t), jax.grad(schedule.sigma)(t)
    velocity = rate[0] * mean + rate[1] * X
    denoiser = make_denoiser(lambda *args: velocity, None, schedule, predict_velocity)
    np.testing.assert_allclose(denoiser(X, t, None).x0, 0 * X + mean, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_straight_velocity():
    """Of the straight line: eps - x0 at any time (Liu et al. 2023, Eq. 1)."""
    x0, eps = jnp.asarray(np.random.default_rng(2).standard_normal((2, 6, 3)))
    t, schedule = jnp.linspace(0.1, 1.0, 6), NEW["rectified_flow"]
    x_t = diffusion.q_sample(schedule, x0, t, eps)
    np.testing.assert_allclose(
        diffusion.velocity_from_x0(schedule, x_t, t, x0), eps - x0, rtol=1e-9
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["edm", "ve", "sub_vp", "rectified_flow", "laplace"])
def test_edm_is_the_best_linear_denoiser(name):
    """Karras et al. 2022, appendix B.6: without the network, the denoiser of N(0, sigma_data^2).

    The network's input and target then have unit variance, and the weighted error is 1.
    """
    schedule, t, std = (SCHEDULES | NEW)[name], jnp.linspace(0.1, 0.9, 6), 0.7
    seen = []

    def silent(params, x_in, c_noise, cond, key):
        seen.append((x_in, c_noise))
        return 0 * x_in

    x = X.astype(float)
    denoiser = make_denoiser(silent, None, schedule, edm_preconditioning(std))
    exact = exact_denoiser(gaussian([0.0, 0.0], std), schedule)(x, t, None).x0
    np.testing.assert_allclose(denoiser(x, t, None).x0, exact, rtol=1e-9, atol=1e-12)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    marginal = jnp.sqrt(alpha**2 * std**2 + sigma**2)
    np.testing.assert_allclose(seen[0][0], x / marginal[:, None], rtol=1e-9)
    np.testing.assert_allclose(seen[0][1], np.log(sigma / alpha) / 4, rtol=1e-8, atol=1e-9)
    c_out = edm_preconditioning(std)(schedule, t).c_out
    variance = 1 / (std**-2 + alpha**2 / sigma**2)  # of x0 given x_t
    np.testing.assert_allclose(c_out**2, variance, rtol=1e-9)
    weight = weighting.edm_weight(std)(logsnr(schedule, t))
    np.testing.assert_allclose(weight * variance, 1, rtol=1e-9)


def test_edm_needs_data_of_some_size():
    with pytest.raises(InputError, match="sigma_data"):
        edm_preconditioning(0.0)
    c = edm_preconditioning(0.5)(NEW["rectified_flow"], jnp.asarray(0.999))
    np.testing.assert_allclose([c.c_in, c.c_out], [1.0, 0.5], rtol=2e-3)


# --- weights and densities --------------------------------------------------------------


def test_sigmoid_weight_as_its_paper_has_it():
    """sigmoid(b - logsnr) in front of the squared error of eps (SNR times that of x0)."""
    level = np.linspace(-12, 12, 49)
    for bias in (2.0, -3.0):
        expected = np.exp(level) / (1 + np.exp(level - bias))
        ours = weighting.sigmoid_weight(bias)(jnp.asarray(level, jnp.float32))
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["vp_cosine", "rectified_flow", "laplace", "ve", "edm"])
def test_integral_over_log_snr(name):
    """The same number from any schedule and any density of t: Kingma & Gao 2023."""
    schedule, width = (SCHEDULES | NEW)[name], 4.0
    ends = schedule.t_from_logsnr(jnp.asarray([width, -width]))
    low, high = map(float, ends)
    schedule = schedule._replace(t_min=low, t_max=high)
    q = (jnp.arange(4000) + 0.5) / 4000

    def bump(level):  # its integral is 1.5 pi (2/pi) 2 width = 6 width
        return 1.5 * np.pi * jnp.cos(level / width * np.pi / 2)

    # Uniform times, and a density 0.5 + u of u in [0, 1] by the inverse of (u + u^2)/2.
    slanted = (jnp.sqrt(1 + 8 * q) - 1) / 2

    def pdf(t):
        return (0.5 + (t - low) / (high - low)) / (high - low)

    for u, density in ((q, None), (slanted, pdf)):
        level = logsnr(schedule, low + (high - low) * u)
        weight = weighting.over_logsnr(bump, schedule, density)
        np.testing.assert_allclose(jnp.mean(weight(level)), 6 * width, rtol=2e-3)


def test_edm_lognormal():
    for schedule in (SCHEDULES["edm"], NEW["rectified_flow"], SCHEDULES["vp_linear"]):
        density = weighting.edm_lognormal(schedule, -0.8, 0.9)
        t, importance = density.draw(jax.random.key(0), 4000, density.init())
        np.testing.assert_array_equal(importance, 1)
        log_sigma = -np.asarray(logsnr(schedule, t), float) / 2
        assert stats.kstest(log_sigma, stats.norm(-0.8, 0.9).cdf).pvalue > 1e-4
    far = weighting.edm_lognormal(SCHEDULES["linear"], 20.0)
    np.testing.assert_array_equal(far.draw(jax.random.key(0), 8, ())[0], 1.0)  # within the range


def test_logit_normal():
    schedule = NEW["rectified_flow"]
    density = weighting.logit_normal(schedule, 0.5, 1.2)
    t, importance = density.draw(jax.random.key(0), 4000, density.init())
    share = (np.asarray(t, float) - schedule.t_min) / (1 - schedule.t_min)
    assert stats.kstest(np.log(share / (1 - share)), stats.norm(0.5, 1.2).cdf).pvalue > 1e-4
    np.testing.assert_array_equal(importance, 1)
