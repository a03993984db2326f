"""Weights against the papers' other forms, and densities against their statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, TWO_MOONS, ZERO_TERMINAL_SNR, draw, exact_denoiser, gaussian
from scipy import stats

from diffjax import diffusion, losses, schedules, weighting
from diffjax.errors import InputError
from diffjax.losses import denoising_loss
from diffjax.parameterization import (
    at_steps,
    edm_preconditioning,
    predict_eps,
    predict_score,
    predict_v,
    predict_velocity,
    predict_x0,
)
from diffjax.schedules import edm, from_betas, linear_betas, logsnr, rectified_flow

SCHEDULE = edm(0.5, 3.0)  # a range that is not [0, 1]
LOGSNR = jnp.linspace(-6, 6, 49)
SNR = np.exp(np.asarray(LOGSNR, float))

# Each weight as its paper has it: in front of the squared error of eps or of v.
EPS, V = SNR, SNR + 1
WEIGHTS = {
    "unit: SNR^-1 on eps": (weighting.unit, EPS / SNR),
    "snr: 1 on eps": (weighting.snr, EPS),
    "snr_plus_one: 1 on v": (weighting.snr_plus_one, V),
    "truncated: max(1, 1/SNR) on eps": (weighting.truncated_snr, EPS * np.fmax(1, 1 / SNR)),
    "min-SNR: min(SNR, 5)/SNR on eps": (weighting.min_snr(), EPS * np.fmin(SNR, 5) / SNR),
    "min-SNR: min(SNR, 5)/(SNR + 1) on v": (weighting.min_snr(), V * np.fmin(SNR, 5) / (SNR + 1)),
    "p2: 1/(k + SNR)^g on eps": (weighting.p2(2.0, 0.5), EPS / np.sqrt(2 + SNR)),
    "p2 of k 1 and gamma 1: 1/(SNR + 1)": (weighting.p2(), EPS * (1 / (1 + SNR))),
}


@pytest.mark.parametrize(("weight", "expected"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights(weight, expected):
    np.testing.assert_allclose(weight(LOGSNR), expected, rtol=2e-5)


def test_velocity_weight_is_that_of_a_wrong_velocity_on_the_straight_line():
    """A velocity wrong by 0.1 everywhere has the loss 0.01; so has the x0 that it means."""
    schedule, point = rectified_flow(), gaussian([0.3, -0.2], 0.0)
    batch = {"x": jnp.broadcast_to(jnp.asarray(point.means, jnp.float32), (16, 2))}

    def velocity(params, x, c_noise, cond, key):
        t = (c_noise / 1000)[:, None]
        return (x * jnp.hypot(1 - t, t) - batch["x"]) / t + params

    def x0(params, x, c_noise, cond, key):
        return batch["x"] - (c_noise / 1000)[:, None] * params

    density = weighting.stratified(schedule)
    for network, predicts in ((velocity, predict_velocity), (x0, predict_x0)):
        loss = denoising_loss(network, schedule, predicts, weighting.velocity, density)
        value, _ = loss(jnp.asarray(0.1), jax.random.key(0), batch)
        np.testing.assert_allclose(value, 0.01, rtol=1e-3)


# --- at the ends of a schedule -----------------------------------------------------------

ENDS = SCHEDULES | {
    "zero terminal SNR": ZERO_TERMINAL_SNR,
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "rectified_flow": rectified_flow(),
    "gvp": schedules.gvp(),
    "laplace 1": schedules.laplace(0.3, 1.0),
    "shifted flow": schedules.shifted(rectified_flow(), 1 / 3),
}
OFTEN = {"vp_cosine", "zero terminal SNR", "rectified_flow"}


def rows(table, often):
    """Some rows of a table always, the rest in the longer run."""
    return [
        pytest.param(value, id=name, marks=() if name in often else pytest.mark.exhaustive)
        for name, value in table.items()
    ]


NAMED = {
    "unit": weighting.unit,
    "snr": weighting.snr,
    "snr_plus_one": weighting.snr_plus_one,
    "velocity": weighting.velocity,
    "truncated_snr": weighting.truncated_snr,
    "min_snr": weighting.min_snr(),
    "p2": weighting.p2(),
    "p2 of gamma 2": weighting.p2(2.0, 2.0),
    "edm_weight": weighting.edm_weight(),
    "sigmoid_weight": weighting.sigmoid_weight(),
}


@pytest.mark.parametrize("schedule", rows(ENDS, OFTEN))
def test_weights_are_finite_at_both_ends(schedule):
    """The bound's weight too, alone and in a batch with other times; compiled as in training."""
    weights = NAMED | {
        "elbo": weighting.elbo_weight(schedule),
        "over": weighting.over_logsnr(weighting.sigmoid_weight(), schedule),
    }
    middle = (schedule.t_min + schedule.t_max) / 2
    t = jnp.asarray([schedule.t_min, middle, schedule.t_max])
    level = jax.jit(logsnr, static_argnums=0)(schedule, t)
    values = jax.jit(lambda level: {k: w(level) for k, w in weights.items()})(level)
    for name, value in values.items():
        assert np.all(np.isfinite(value)), name
        assert np.all(np.asarray(value) >= 0), name


@pytest.mark.parametrize("double", [True, False])
def test_the_limit_of_the_bound_where_the_snr_is_zero(double):
    """-SNR'(1)/2 over the density of t, by hand: cot^2, ((1 - t)/t)^2, (2 (1 - t))^scale e^m."""
    constant, rtol = 1.5 * np.exp(0.3), 1e-7 if double else 1e-3  # of density 1/1.5
    cases = [
        (schedules.gvp(), 0),
        (rectified_flow(), 0),
        (schedules.shifted(rectified_flow(), 1 / 3), 0),
        (ZERO_TERMINAL_SNR, 0),
        (schedules.laplace(0.3, 1.0)._replace(t_min=-0.5), constant),
        (schedules.laplace(0.3, 2.0), 0),
        (schedules.laplace(0.3, 0.5), np.inf),
    ]
    with jax.enable_x64(double):
        for schedule, expected in cases:
            level = logsnr(schedule, jnp.asarray([0.5, 1.0]))
            value = weighting.elbo_weight(schedule)(level)
            np.testing.assert_allclose(value[1], expected, rtol=rtol)
            assert 0 < value[0] < np.inf
        # dlogsnr/dt = -2/(t (1 - t)): the SNR's root has a limit, a constant has none.
        flow, zero = rectified_flow(t_min=0.0), jnp.asarray(-jnp.inf)
        root = weighting.over_logsnr(lambda level: jnp.exp(level / 2), flow)
        np.testing.assert_allclose(root(zero), 2, rtol=rtol)
        assert weighting.over_logsnr(weighting.unit, flow)(zero) == np.inf


PREDICTS = {
    "eps": predict_eps,
    "x0": predict_x0,
    "v": predict_v,
    "score": predict_score,
    "velocity": predict_velocity,
    "edm": edm_preconditioning(),
    "eps at steps": at_steps(predict_eps),
}


@pytest.mark.parametrize("predicts", rows(PREDICTS, {"eps", "v", "velocity", "edm"}))
@pytest.mark.parametrize("schedule", rows(ENDS, OFTEN))
def test_a_loss_is_finite_at_both_ends_or_refused_when_built(schedule, predicts):
    """Every loss of a denoiser, with all its times at an end; and what is refused is not finite."""

    def network(params, x, c_noise, cond, key):
        return x * params

    def at(t):
        fixed = weighting.uniform(schedule)._replace(
            draw=lambda key, batch, state: (jnp.full(batch, t), jnp.ones(batch))
        )
        return [
            denoising_loss(network, schedule, predicts, weighting.snr, fixed),
            losses.denoising_score_matching(network, schedule, predicts, fixed),
        ]

    batch = {"x": jnp.ones((2, 3))}
    ends = schedule.t_min, schedule.t_max
    coefficients = [c for t in ends for c in predicts(schedule, jnp.asarray(t))]
    if not np.all(np.isfinite(coefficients)):
        assert schedule.alpha(jnp.asarray(schedule.t_max)) == 0
        with pytest.raises(InputError, match="not finite at t = 1, an end of the training times"):
            at(1.0)
        at_below = schedule._replace(t_max=0.99)
        denoising_loss(network, at_below, predicts, weighting.snr, weighting.uniform(at_below))
        return
    for t in ends:
        for loss in at(t):
            assert jnp.isfinite(loss(jnp.ones(()), jax.random.key(0), batch)[0])


def test_a_learned_schedule_is_not_looked_at():
    """Its parameters may be traced while the loss is built."""

    def value(slope):
        schedule = schedules.learned_vp(lambda t: 6 - slope * t)
        density = weighting.uniform(schedule)
        weight = weighting.elbo_weight(schedule)
        loss = denoising_loss(lambda p, x, *rest: x, schedule, predict_eps, weight, density)
        return loss(None, jax.random.key(0), {"x": jnp.ones((4, 2))})[0]

    assert jnp.isfinite(jax.jit(value)(12.0))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: weighting.min_snr(0.0), "min_snr needs a positive gamma; got 0.0"),
        (lambda: weighting.p2(-1.0), "p2 needs a positive k; got -1.0"),
        (lambda: weighting.edm_weight(float("nan")), "a positive sigma_data; got nan"),
        (lambda: weighting.edm_lognormal(SCHEDULE, 0.0, 0.0), "edm_lognormal needs a positive std"),
        (lambda: weighting.logit_normal(SCHEDULE, 0.0, -1.0), "logit_normal needs a positive std"),
        (
            lambda: weighting.second_moment(SCHEDULE, 0),
            "second_moment needs a whole number of bins",
        ),
        (lambda: weighting.second_moment(SCHEDULE, uniform_share=0.0), "uniform_share in .0, 1."),
        (
            lambda: weighting.on_steps(weighting.uniform(SCHEDULE), SCHEDULE, 0),
            "a whole number T of steps",
        ),
        (
            lambda: weighting.second_moment(SCHEDULE).draw(jax.random.key(0), 2, ()),
            "second_moment keeps a state",
        ),
        (lambda: schedules.vp_linear(20.0, 0.1), "0 < beta_min <= beta_max"),
        (lambda: schedules.laplace(scale=0.0), "laplace needs a positive scale"),
        (lambda: schedules.edm(80.0, 0.002), "edm needs 0 < sigma_min < sigma_max"),
    ],
)
def test_numbers_out_of_range_are_a_sentence(call, says):
    with pytest.raises(InputError, match=says):
        call()


# --- densities --------------------------------------------------------------------------

DENSITIES = {"uniform": weighting.uniform, "stratified": weighting.stratified}


@pytest.mark.parametrize("make", DENSITIES.values(), ids=DENSITIES)
def test_uniform_times(make):
    """The first time of a batch, over many keys, and all times of one batch are uniform."""
    density = make(SCHEDULE)
    keys = jax.random.split(jax.random.key(0), 2000)
    t, importance = jax.vmap(lambda key: density.draw(key, 8, density.init()))(keys)
    np.testing.assert_array_equal(importance, 1)
    for column in (0, 5):
        unit = (np.asarray(t[:, column], float) - 0.5) / 2.5
        assert stats.kstest(unit, "uniform").pvalue > 1e-4
    assert np.all((t >= 0.5) & (t <= 3.0))


def test_stratified_covers_each_batch():
    """One time per eighth of the range in every batch of 8, so that means vary 8 times less."""
    spread = {}
    for name, make in DENSITIES.items():
        density, keys = make(SCHEDULE), jax.random.split(jax.random.key(1), 500)
        t, _ = jax.vmap(lambda key, d=density: d.draw(key, 8, d.init()))(keys)
        spread[name] = np.var(np.mean(np.square(t), axis=1))
    eighth = np.sort(np.floor((np.asarray(t, float) - 0.5) / 2.5 * 8), axis=1)
    # A time on the edge of two eighths may round to either.
    assert np.mean(eighth == np.arange(8)[None]) > 0.999
    assert spread["stratified"] < spread["uniform"] / 6


BINS = 5


def jitted(density):
    return density._replace(
        draw=jax.jit(density.draw, static_argnums=1), update=jax.jit(density.update)
    )


SIZES = np.asarray([1.0, 4.0, 2.0, 0.5, 2.5])


def bin_of(t):
    return np.clip(((np.asarray(t, float) - 0.5) / 2.5 * BINS).astype(int), 0, BINS - 1)


def middle(bins):
    return 0.5 + 2.5 * (jnp.asarray(bins) + 0.5) / BINS


def warmed(history=4):
    """A density that has seen losses of root mean square SIZES, but not of mean SIZES."""
    density = jitted(weighting.second_moment(SCHEDULE, BINS, history, uniform_share=0.01))
    state = density.init()
    steady, rare = np.ones(history), np.sqrt(history) * np.eye(history)[-1]
    for factors in np.stack([steady, rare, steady, rare, rare], axis=1):
        state = density.update(state, middle(np.arange(BINS)), jnp.asarray(SIZES * factors))
    return density, state


def test_second_moment_is_uniform_until_warm():
    density, state = warmed(history=4)
    losses, _ = state
    cold = density.update(density.init(), middle([1, 1, 1, 1]), jnp.full(4, 9.0))
    for not_yet in (density.init(), cold):
        t, importance = density.draw(jax.random.key(0), 4000, not_yet)
        np.testing.assert_allclose(importance, 1, rtol=1e-6)
        assert stats.kstest((np.asarray(t, float) - 0.5) / 2.5, "uniform").pvalue > 1e-4
    # Pure: none of that changed the state.
    np.testing.assert_array_equal(losses, warmed()[1][0])
    assert np.all(density.init()[1] == 0)


def test_second_moment_frequencies():
    density, state = warmed()
    t, importance = density.draw(jax.random.key(2), 20_000, state)
    expected = 0.99 * SIZES / SIZES.sum() + 0.01 / BINS
    counts = np.bincount(bin_of(t), minlength=BINS)
    assert stats.chisquare(counts, 20_000 * expected).pvalue > 1e-4
    inside = (np.asarray(t, float) - 0.5) / 2.5 * BINS - bin_of(t)
    assert stats.kstest(inside, "uniform").pvalue > 1e-4
    # Importance makes any mean that over uniform t: of t^2 over [0.5, 3], a third of a cube.
    values = np.asarray(importance * t**2, float)
    exact = (3**3 - 0.5**3) / 3 / 2.5
    assert abs(values.mean() - exact) < 4.5 * values.std() / np.sqrt(len(values))


def test_ring_buffer_keeps_the_newest():
    """Whatever the batches, and however often a bin comes in one of them."""
    density = jitted(weighting.second_moment(SCHEDULE, BINS, history=3))
    rng = np.random.default_rng(0)
    state, seen = density.init(), [[] for _ in range(BINS)]
    for size in (1, 2, 3, 5, 4, 3, 1):
        bins = rng.integers(0, BINS, size)
        assert np.bincount(bins).max() <= 3
        losses = rng.uniform(1, 2, size).astype(np.float32)
        state = density.update(state, middle(bins), jnp.asarray(losses))
        for b, loss in zip(bins, losses, strict=True):
            seen[b].append(loss)
    remembered, counts = state
    np.testing.assert_array_equal(counts, [len(s) for s in seen])
    for row, history in zip(remembered, seen, strict=True):
        np.testing.assert_array_equal(np.sort(row[row > 0]), np.sort(history[-3:]))


def test_more_losses_of_a_bin_than_it_remembers():
    """All kept are of that batch, and the counts go on."""
    density = jitted(weighting.second_moment(SCHEDULE, BINS, history=3))
    state = density.update(density.init(), middle([2, 2]), jnp.asarray([100.0, 200.0]))
    batch = jnp.arange(1.0, 8.0)
    remembered, counts = density.update(state, middle([2] * 7), batch)
    assert counts[2] == 9
    assert set(np.asarray(remembered[2]).tolist()) <= set(np.asarray(batch).tolist())
    assert np.all(np.delete(remembered, 2, axis=0) == 0)


def test_score_norm_of_a_mixture_and_its_variance():
    """Warmed by the exact denoiser's losses: p is E|score|^2, and means have less variance.

    The estimate is that of the mean over uniform t of |score|^2, per dimension, by one draw of
    x_t for each time; the bins' own means come from other draws.
    """
    schedule, bins, n = SCHEDULES["vp_linear"]._replace(t_min=0.1), 10, 8000
    denoiser, weight = exact_denoiser(TWO_MOONS, schedule), weighting.snr
    density = weighting.score_norm(schedule, weight, bins, n // bins, uniform_share=0.01)

    @jax.jit
    def losses_at(key, t):
        data_key, eps_key = jax.random.split(key)
        x0 = draw(data_key, TWO_MOONS, t.shape[0])
        x_t = diffusion.q_sample(schedule, x0, t, jax.random.normal(eps_key, x0.shape))
        x0_hat = denoiser(x_t, t, None).x0
        score = diffusion.score_from_x0(schedule, x_t, t, x0_hat)
        error = jnp.mean((x0_hat - x0) ** 2, axis=1)
        return weight(logsnr(schedule, t)) * error, jnp.mean(score**2, axis=1)

    low, width = schedule.t_min, schedule.t_max - schedule.t_min
    comb = jnp.tile((jnp.arange(bins) + 0.5) / bins, n // bins)
    place = (jax.random.uniform(jax.random.key(0), (n,)) - 0.5) / bins
    t = low + width * (comb + place)
    losses_seen, squares = losses_at(jax.random.key(1), t)
    state = jax.jit(density.update)(density.init(), t, losses_seen)
    index = np.tile(np.arange(bins), n // bins)
    exact = np.asarray([np.mean(np.asarray(squares)[index == b]) for b in range(bins)])
    exact = exact / exact.sum()

    t, importance = jax.jit(density.draw, static_argnums=1)(jax.random.key(2), n, state)
    p = 1 / (bins * np.asarray(importance))
    which = np.clip(((np.asarray(t) - low) / width * bins).astype(int), 0, bins - 1)
    np.testing.assert_allclose(p, (0.99 * exact + 0.01 / bins)[which], rtol=0.35)
    weighed = np.asarray(importance * losses_at(jax.random.key(3), t)[1])
    plain = np.asarray(squares)
    error = 4.5 * np.hypot(plain.std(), weighed.std()) / np.sqrt(n)
    assert abs(weighed.mean() - plain.mean()) < error
    # By hand: the second moment of a bin over its p; the ratio is about 0.67.
    second = np.asarray([np.mean(plain[index == b] ** 2) for b in range(bins)])
    expected = np.mean(second / (bins * (0.99 * exact + 0.01 / bins))) - plain.mean() ** 2
    np.testing.assert_allclose(weighed.var(), expected, rtol=0.2)
    assert weighed.var() < 0.8 * plain.var()


@pytest.mark.parametrize("T", [40, 1000])
def test_on_steps(T):
    """The times k/T of a table, each as often, and the update in the step's own bin."""
    schedule = from_betas(linear_betas(T))
    density = jitted(weighting.on_steps(weighting.uniform(schedule), schedule, T))
    t, _ = density.draw(jax.random.key(0), 20_000, density.init())
    k = np.round(np.asarray(t) * T)
    np.testing.assert_allclose(t, k / T, rtol=1.3e-7)  # a unit in the last place
    assert k.min() == 1
    assert k.max() == T
    counts = np.bincount(k.astype(int), minlength=T + 1)[1:]
    assert stats.chisquare(counts).pvalue > 1e-4
    moment = jitted(weighting.on_steps(weighting.second_moment(schedule, T, 1), schedule, T))
    steps = jnp.arange(1, T + 1)
    losses, counts = moment.update(moment.init(), steps / T, steps.astype(float))
    np.testing.assert_array_equal(counts, 1)
    np.testing.assert_array_equal(losses[:, 0], steps)


def test_stratified_on_steps_visits_every_step():
    schedule = SCHEDULES["linear"]
    density = jitted(weighting.on_steps(weighting.stratified(schedule), schedule, 1000))
    t, _ = density.draw(jax.random.key(0), 1000, density.init())
    assert len(np.unique(t)) > 990
