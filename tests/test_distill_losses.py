"""Losses of few-step methods at the exact map: their gradient is zero there, and not elsewhere."""

import importlib.util
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture, draw, exact_denoiser, gaussian, network_of
from test_distill import LINE, MEAN, STD, gaussian_map, golden, rows

from diffjax import distill, grids, prior_sample, sample, samplers, schedules, weighting
from diffjax.errors import InputError
from diffjax.parameterization import edm_preconditioning, predict_v, predict_velocity
from diffjax.types import Prediction

SLOW = pytest.mark.exhaustive
EDM, CIRCLE, COSINE = schedules.edm(), schedules.gvp(), schedules.vp_cosine()
DATA = gaussian([MEAN], STD)
WRONG = gaussian([MEAN - 0.3], 0.6)
EXACT = {"a": jnp.zeros(5)}
BATCH = 512

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def x32():
    """Single precision for a test of this file."""
    with jax.enable_x64(False):
        yield


def edm_by_time(schedule, t):
    """EDM's preconditioning for the exact networks, whose c_noise is 1000 t."""
    return edm_preconditioning(0.5)(schedule, t)._replace(c_noise=1000 * t)


def gradients(loss, n=64, **context):
    """Gradients (n, 5) of n batches at the exact network."""

    def one(key):
        data_key, loss_key = jax.random.split(key)
        batch = {"x": draw(data_key, DATA, BATCH)}
        return jax.grad(lambda p: loss(p, loss_key, batch, **context)[0])({"a": jnp.zeros(5)})["a"]

    return np.asarray(
        jax.jit(lambda key: jax.lax.map(one, jax.random.split(key, n)))(jax.random.key(0))
    )


def z_scores(g):
    """The mean gradient in units of its standard error."""
    return g.mean(0) / (g.std(0) / np.sqrt(len(g)) + 1e-12)


# Unbiased: losses from data alone, whose mean gradient is zero at the exact map of the data.

PAIRS = weighting.uniform(LINE)
VELOCITY = lambda level: (1 + jnp.exp(level / 2)) ** 2  # noqa: E731 - 1/t^2 on the line


def mean_flow(network):
    return distill.mean_flow(
        network, LINE, predict_velocity, PAIRS, together=0.25, distance=distill.adaptive(0.0)
    )


def improved(network):
    return distill.improved_mean_flow(
        network, LINE, predict_velocity, PAIRS, together=0.25, distance=distill.adaptive(0.0)
    )


def scm(network):
    return distill.scm(
        network, CIRCLE, predict_v, weighting.uniform(CIRCLE), warmup=0, normalise=lambda g: g
    )


def shortcut(network):
    return distill.shortcut(network, LINE, predict_velocity, VELOCITY, steps=1024)


def solution(network):
    return distill.solution_flow(
        network,
        LINE,
        predict_velocity,
        PAIRS,
        total=1,
        ratio=lambda p: 1e-3,
        distance=distill.adaptive(0.0),
    )


def network_at(schedule, parameterization, two_times=True, data=DATA):
    """The network of exactly the flow map of Gaussian data, or of its consistency function."""
    denoiser = gaussian_map(schedule, float(data.means[0, 0]), float(data.stds[0]))
    if not two_times:
        move, end = distill.flow_map(schedule, denoiser), schedules.clean_time(schedule)
        function = lambda x, t, cond: Prediction(move(x, t, end * jnp.ones_like(t), cond))  # noqa: E731
        return network_of(function, schedule, parameterization)
    return network_of(denoiser, schedule, parameterization)


UNBIASED = {
    "mean_flow": (mean_flow, partial(network_at, LINE, predict_velocity)),
    "improved_mean_flow": (improved, partial(network_at, LINE, predict_velocity)),
    "scm": (scm, partial(network_at, CIRCLE, predict_v, False)),
    "shortcut": (shortcut, partial(network_at, LINE, predict_velocity)),
    "solution_flow": (solution, partial(network_at, LINE, predict_velocity)),
}


@pytest.mark.parametrize(
    "name", rows("mean_flow", "improved_mean_flow", "scm", "shortcut", "solution_flow")
)
def test_gradient_is_zero_at_the_exact_map_alone(name):
    make, network = UNBIASED[name]
    exact, wrong = (z_scores(gradients(make(network(data=data)))) for data in (DATA, WRONG))
    assert np.abs(exact).max() < 4.5, exact
    assert np.abs(wrong).max() > 20, wrong


NULL = -0.2


def guided_map(schedule, ends, moves=True):
    """The exact map of guided Gaussians, N(NULL + w (MEAN - NULL), STD^2); of label 1 NULL's.

    Laws that differ in their mean alone have such a guided flow, at every scale w.
    """
    centred = gaussian_map(schedule, 0.0, STD)
    end = schedules.clean_time(schedule)

    def denoiser(x, t, cond):
        known = jnp.where(cond["label"] == 1, 0.0, cond["guidance_scale"] if moves else 1.0)
        mean = (NULL + known * (MEAN - NULL))[:, None]
        where = t.t if isinstance(t, distill.Interval) else t
        t = distill.Interval(t, jnp.full_like(t, end)) if ends else t
        shift = schedule.alpha(jnp.broadcast_to(where, x.shape[:1]))[:, None] * mean
        return Prediction(centred(x - shift, t, None).x0 + mean)

    return denoiser


def guided(schedule):
    """The velocity of data, guided by the exact laws with the label and without."""
    given, null = (exact_denoiser(gaussian([mean], STD), schedule) for mean in (MEAN, NULL))

    def unguided(frozen):
        def denoiser(x, t, cond):
            is_null = (cond["label"] == 1)[:, None]
            return Prediction(jnp.where(is_null, null(x, t, None).x0, given(x, t, None).x0))

        return denoiser

    return distill.guided_data(schedule, unguided, {"label": jnp.asarray(1)})


GUIDED = {
    "shortcut": (
        lambda net: distill.shortcut(
            net, LINE, predict_velocity, VELOCITY, 1024, velocity=guided(LINE)
        ),
        (LINE, predict_velocity, False),
    ),
    "moments": (
        lambda net: distill.inductive_moment_matching(
            *(net, COSINE, predict_v, weighting.uniform(COSINE), weighting.unit, 256),
            earlier=lambda t: 0.97 * t,
            velocity=guided(COSINE),
        ),
        (COSINE, predict_v, False),
    ),
    "consistency training": (
        lambda net: distill.consistency_training(
            *(net, EDM, distill_edm, 1, distill.squared),
            points=lambda k, K: jnp.asarray(1025),
            velocity=guided(EDM),
        ),
        (EDM, lambda *given: distill_edm(*given), True),
    ),
    "easy consistency": (
        lambda net: distill.easy_consistency(
            *(net, EDM, edm_by_time, 1, 11), std=1.0, velocity=guided(EDM)
        ),
        (EDM, edm_by_time, True),
    ),
}


@pytest.mark.parametrize("name", rows(*GUIDED))
def test_guided_data_teach_the_map_of_the_guided_flow(name):
    make, (schedule, predicts, ends) = GUIDED[name]

    def z(moves):
        loss = make(network_of(guided_map(schedule, ends, moves), schedule, predicts))
        added = {"label": jnp.zeros(BATCH, int), "guidance_scale": jnp.linspace(1.0, 3.0, BATCH)}
        given = lambda p, key, batch, **context: loss(p, key, {**batch, **added}, **context)  # noqa: E731
        return np.abs(z_scores(gradients(given, n=32, iteration=1))).max()

    exact = z(True)
    assert exact < 4.5
    assert z(False) > 4 * exact


@SLOW
@pytest.mark.parametrize("method", [distill.mean_flow, distill.improved_mean_flow])
def test_mean_flow_of_a_teacher(method):
    """With the flow's own velocity the loss itself is zero, in every batch."""
    velocity = distill.velocity_of_teacher(LINE, lambda frozen: exact_denoiser(DATA, LINE))
    loss = method(network_at(LINE, predict_velocity), LINE, predict_velocity, PAIRS, velocity)
    batch = {"x": draw(jax.random.key(0), DATA, 64)}
    value = jax.jit(lambda key: loss(EXACT, key, batch, frozen={})[0])(jax.random.key(1))
    np.testing.assert_allclose(value, 0, atol=1e-12)


@SLOW
def test_scm_of_a_teacher():
    velocity = distill.velocity_of_teacher(CIRCLE, lambda frozen: exact_denoiser(DATA, CIRCLE))
    loss = distill.scm(
        network_at(CIRCLE, predict_v, False),
        CIRCLE,
        predict_v,
        weighting.uniform(CIRCLE),
        velocity,
        warmup=0,
    )
    batch = {"x": draw(jax.random.key(0), DATA, 64)}
    value, aux = loss(EXACT, jax.random.key(1), batch, frozen={})
    np.testing.assert_allclose(value, 0, atol=1e-12)
    assert aux["context"]["iteration"] == 1


@pytest.mark.parametrize("network", rows("flow", "consistency function"))
def test_scm_learns_the_flow_while_it_is_held(network):
    """With r = 0 the network of the flow is perfect, and only then; with r = 1 that of its end."""
    flow = exact_denoiser(DATA, CIRCLE)
    ends = network_at(CIRCLE, predict_v, False)
    known = network_of(flow, CIRCLE, predict_v) if network == "flow" else ends
    velocity = distill.velocity_of_teacher(CIRCLE, lambda frozen: flow)
    given = (known, CIRCLE, predict_v, weighting.uniform(CIRCLE), velocity)
    loss = distill.scm(*given, warmup=4, held=3)
    batch = {"x": draw(jax.random.key(0), DATA, 64)}

    @jax.jit
    def value(iteration):
        return loss(EXACT, jax.random.key(1), batch, frozen={}, iteration=iteration)[0]

    values = np.array([value(iteration) for iteration in (0, 3, 4, 6, 7, 100)])
    perfect = np.array([1, 1, 0, 0, 0, 0] if network == "flow" else [0, 0, 0, 0, 1, 1], bool)
    np.testing.assert_allclose(values[perfect], 0, atol=1e-12)
    assert (values[~perfect] > 1e-4).all(), values


# Biased by a step: the gradient falls with the step, at the exact map alone.


def easy(network, stage):
    """ECT held at one stage: the step is (1 + 8 sigmoid(-t)) t / 2^(stage + 1)."""
    return distill.easy_consistency(network, EDM, edm_by_time, total=1, stages=stage + 1, std=1.0)


def improved_training(network, stage):
    """iCT held at 2^stage intervals, with the squared distance."""
    return distill.consistency_training(
        network, EDM, distill_edm, 1, distill.squared, points=lambda k, K: jnp.asarray(2**stage + 1)
    )


def distill_edm(schedule, t):
    return distill.consistency_preconditioning(0.5, 0.002)(schedule, t)._replace(c_noise=1000 * t)


@SLOW
@pytest.mark.parametrize("method", [easy, improved_training])
def test_consistency_training_is_exact_as_the_step_falls(method):
    """The bias of a long step is seen, and is gone from a short one at the exact map alone."""
    parameterization = edm_by_time if method is easy else distill_edm

    def z(data, stage):
        network = network_at(EDM, parameterization, False, data)
        return np.abs(z_scores(gradients(method(network, stage), n=32, iteration=1))).max()

    assert z(DATA, 3) > 6
    assert z(DATA, 10) < 4.5
    assert z(WRONG, 10) > 20


@SLOW
@pytest.mark.parametrize("n", [24])
def test_consistency_distillation_is_exact_as_the_solver_is(n):
    """Heun's local error is of order 3: the squared loss falls by 2^6 where the grid doubles."""
    teacher = lambda frozen: exact_denoiser(DATA, EDM)  # noqa: E731
    network = network_at(EDM, edm_by_time, False)
    batch = {"x": draw(jax.random.key(0), DATA, 20_000)}

    def value(n):
        loss = distill.consistency_distillation(
            network, EDM, edm_by_time, teacher, grids.karras(EDM, n, sigma_min=0.1)[:-1]
        )
        return jax.jit(lambda key: loss(EXACT, key, batch, frozen={})[0])(jax.random.key(1))

    assert 40 < value(n) / value(2 * n) < 90


@SLOW
def test_consistency_distillation_keeps_an_average():
    network = network_at(EDM, edm_by_time, False)
    make = partial(
        distill.consistency_distillation,
        network,
        EDM,
        edm_by_time,
        lambda frozen: exact_denoiser(DATA, EDM),
        grids.karras(EDM, 8),
        decay=0.75,
    )
    batch = {"x": draw(jax.random.key(0), DATA, 4)}
    with pytest.raises(InputError, match="target"):
        make()(EXACT, jax.random.key(1), batch, frozen={})
    _, aux = make()({"a": jnp.ones(5)}, jax.random.key(1), batch, frozen={}, target=EXACT)
    np.testing.assert_allclose(aux["context"]["target"]["a"], 0.25)


@SLOW
def test_consistency_trajectory_is_exact_as_the_solver_is():
    schedule = schedules.vp_cosine()
    teacher = lambda frozen: exact_denoiser(DATA, schedule)  # noqa: E731
    network = network_at(schedule, predict_v)
    batch = {"x": draw(jax.random.key(0), DATA, 4000)}

    def value(n):
        loss = distill.consistency_trajectory(
            network, schedule, predict_v, teacher, jnp.linspace(0.9, 0.0, n + 1), weighting.unit
        )
        return jax.jit(lambda key: loss(EXACT, key, batch, frozen={})[1]["consistency"])(
            jax.random.key(1)
        )

    assert value(32) < value(8) / 50


# Progressive and guidance distillation, reflow: the target is known exactly.


@SLOW
def test_progressive_student_samples_as_its_teacher():
    """The student that has no loss takes in 4 DDIM steps what the teacher takes in 8."""
    teacher = lambda frozen: exact_denoiser(DATA, CIRCLE)  # noqa: E731
    ts = distill.even_times(CIRCLE, 8)

    def student(x, t, cond):
        half = 1 / 16 * CIRCLE.t_max * 2
        denoise = lambda x, t: teacher(None)(x, t, None)  # noqa: E731
        return Prediction(distill.progressive_target(CIRCLE, denoise, x, t, t - half, t - 2 * half))

    loss = distill.progressive_distillation(
        network_of(student, CIRCLE, predict_v),
        CIRCLE,
        predict_v,
        teacher,
        4,
        weighting.truncated_snr,
    )
    batch = {"x": draw(jax.random.key(0), DATA, 64)}
    assert loss(EXACT, jax.random.key(1), batch, frozen={})[0] < 1e-20
    assert loss({"a": jnp.ones(5)}, jax.random.key(1), batch, frozen={})[0] > 0.01
    x = prior_sample(jax.random.key(2), CIRCLE, (6, 1))
    run = partial(sample, jax.random.key(3), sampler=samplers.ddim(CIRCLE), x=x)
    fast = run(denoiser=student, ts=ts[::2])
    np.testing.assert_allclose(fast, run(denoiser=teacher(None), ts=ts), atol=1e-12)


def labelled(x, t, cond):
    """Class 0 is DATA, class 1 WRONG, the null label 2 their mixture."""
    either = Mixture(
        np.full(2, 0.5), *(np.concatenate(pair) for pair in zip(DATA[1:], WRONG[1:], strict=True))
    )
    options = jnp.stack([exact_denoiser(m, LINE)(x, t, None).x0 for m in (DATA, WRONG, either)])
    return Prediction(jnp.take_along_axis(options, cond["label"][None, :, None], 0)[0])


@SLOW
def test_guidance_distillation():
    """The guided teacher itself, given the scale, has no loss; at scale 1 it is the plain one."""
    teacher = distill.guided_by(lambda frozen: labelled, {"label": jnp.asarray(2)})

    def student(x, t, cond):
        return Prediction(teacher(None, x, t, {"label": cond["label"]}, cond["guidance_scale"]))

    network = network_of(student, LINE, predict_velocity)
    loss = distill.guidance_distillation(
        network, LINE, predict_velocity, teacher, weighting.uniform(LINE), weighting.unit
    )
    batch = {"x": draw(jax.random.key(0), DATA, 6), "label": jnp.arange(6) % 2}
    assert loss(EXACT, jax.random.key(1), batch, frozen={})[0] < 1e-20
    assert loss({"a": jnp.ones(5)}, jax.random.key(1), batch, frozen={})[0] > 0.01
    cond, t = {"label": batch["label"]}, jnp.full(6, 0.6)
    plain = distill.at_scale(student, 1.0)(batch["x"], t, cond).x0
    np.testing.assert_allclose(plain, labelled(batch["x"], t, cond).x0, atol=1e-12)
    null = {"label": jnp.full(6, 2)}
    none = distill.at_scale(student, 0.0)(batch["x"], t, cond).x0
    np.testing.assert_allclose(none, labelled(batch["x"], t, null).x0, atol=1e-12)


@SLOW
def test_reflow_of_a_gaussian_is_straight():
    """Pairs x = m + std z: x_t tells z, so the loss is zero and one Euler step is exact."""
    noise = jax.random.normal(jax.random.key(0), (64, 1))
    ts = jnp.linspace(1.0, 0.0, 400)
    batch = distill.coupling(
        jax.random.key(1), LINE, exact_denoiser(DATA, LINE), samplers.heun(LINE), ts, noise
    )
    np.testing.assert_allclose(batch["x"], MEAN + STD * noise, atol=1e-4)

    def straight(x, t, cond):
        t = jnp.broadcast_to(t, x.shape[:1])[:, None]
        return Prediction(MEAN + STD * (x - (1 - t) * MEAN) / ((1 - t) * STD + t))

    loss = distill.reflow(
        network_of(straight, LINE, predict_velocity), LINE, predict_velocity, PAIRS, weighting.unit
    )
    assert loss(EXACT, jax.random.key(2), batch)[0] < 1e-8
    y = sample(jax.random.key(3), straight, samplers.euler(LINE), noise, jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(y, batch["x"], atol=1e-4)


# Generators: of the right law they are at rest, of a wrong one they are not.


@SLOW
def test_distribution_matching():
    """With the exact generator and critic no gradient for the one and none on average for both."""
    teacher = lambda frozen: exact_denoiser(DATA, CIRCLE)  # noqa: E731
    end = {"exact": DATA, "wrong": WRONG}

    def made(data):
        """A generator where t is t_max, and the exact denoiser of what it makes elsewhere."""

        def denoiser(x, t, cond):
            t = jnp.broadcast_to(t, x.shape[:1])
            mean, std = float(data.means[0, 0]), float(data.stds[0])
            inner = exact_denoiser(data, CIRCLE)(x, t, None).x0
            return Prediction(jnp.where((t == CIRCLE.t_max)[:, None], mean + std * x, inner))

        return network_of(denoiser, CIRCLE, predict_v)

    density = weighting.uniform(CIRCLE)
    size = {}
    for name, data in end.items():
        loss = distill.distribution_matching(
            made(data), CIRCLE, predict_v, teacher, density, weighting.unit
        )

        def one(key, loss=loss):
            params = {"generator": EXACT, "critic": EXACT}
            batch = {"x": jnp.zeros((BATCH, 1))}
            g = jax.grad(lambda p: loss(p, key, batch, frozen={}, iteration=0)[0])(params)
            return g["generator"]["a"], g["critic"]["a"]

        keys = jax.random.split(jax.random.key(0), 32)
        gradient = jax.jit(lambda keys, one=one: jax.lax.map(one, keys))(keys)
        size[name] = [np.asarray(g) for g in gradient]
    assert np.abs(size["exact"][0]).max() < 1e-9
    assert np.abs(z_scores(size["exact"][1])).max() < 4.5
    assert np.abs(z_scores(size["wrong"][0])).max() > 4.5
    assert np.abs(z_scores(size["wrong"][1])).max() < 4.5  # the critic knows the wrong law


def log_ratio(x, t, made):
    """log p_t(x) of DATA over that of generated data, for x and t (B, 1)."""
    alpha, sigma = CIRCLE.alpha(t), CIRCLE.sigma(t)

    def logdensity(law):
        variance = alpha**2 * law.stds[0] ** 2 + sigma**2
        return -((x - alpha * law.means[0, 0]) ** 2) / (2 * variance) - jnp.log(variance) / 2

    return logdensity(DATA) - logdensity(made)


def adversary_of(made, weights=(1.0, 1.0)):
    """The head whose logits are the log-ratio of laws, plus params["head"] times features."""

    def discriminate(params, x, c_noise, cond):
        t = (c_noise / 1000)[:, None]
        features = jnp.stack([jnp.ones_like(x), x, jnp.tanh(2 * x), t * x, jnp.cos(x - t)])
        return log_ratio(x, t, made) + jnp.tensordot(params["head"], features, 1)

    return distill.adversarial_head(
        discriminate, CIRCLE, predict_v, weighting.uniform(CIRCLE), weights
    )


def test_the_head_learns_the_ratio_of_the_laws():
    """It is at rest where its logits are that ratio (Goodfellow et al. 2014, Prop. 1)."""
    nothing = jnp.zeros(5)

    def z(believed):
        def one(key):
            fake, real, key = jax.random.split(key, 3)
            given = key, draw(fake, WRONG, BATCH), draw(real, DATA, BATCH), None
            return jax.grad(lambda a: adversary_of(believed)({"head": a}, *given).critic)(nothing)

        keys = jax.random.split(jax.random.key(0), 64)
        return np.abs(z_scores(np.asarray(jax.jit(partial(jax.lax.map, one))(keys)))).max()

    assert z(WRONG) < 4.5
    assert z(gaussian([MEAN], 0.6)) > 10


@SLOW
def test_a_head_moves_the_generator_by_the_slope_of_the_ratio():
    """E[-(1 - D) dlogit/dx alpha] by quadrature; and each player's loss is of its own alone."""
    n, weights = 100_000, (2.0, 1.0)
    real, fake = draw(jax.random.key(0), DATA, n), draw(jax.random.key(1), WRONG, n)
    adversary = adversary_of(WRONG, weights)

    @partial(jax.jit, static_argnums=2)
    def slopes(shift, head, which):
        term = lambda b, a: adversary({"head": a}, jax.random.key(2), fake + b, real, None)[which]  # noqa: E731
        return jax.grad(term, (0, 1))(shift, head)

    moved, idle = slopes(0.0, jnp.zeros(5), 0)
    t, z = np.linspace(1e-3, 1, 400)[:, None], np.linspace(-6, 6, 801)[None]
    alpha, mean, std = CIRCLE.alpha(t), float(WRONG.means[0, 0]), float(WRONG.stds[0])
    x = alpha * mean + np.sqrt(alpha**2 * std**2 + CIRCLE.sigma(t) ** 2) * z
    slope = jax.vmap(jax.vmap(jax.grad(lambda x, t: log_ratio(x, t, WRONG)), (0, None)))
    force = jax.nn.sigmoid(-log_ratio(x, t, WRONG)) * slope(jnp.asarray(x), jnp.asarray(t[:, 0]))
    each = np.trapezoid(-force * alpha * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), z[0], axis=1)
    wanted = np.trapezoid(each, t[:, 0]) / (1 - 1e-3)
    np.testing.assert_allclose(moved, weights[0] * wanted, rtol=0.02)
    np.testing.assert_array_equal(idle, 0)
    assert slopes(0.0, jnp.zeros(5), 1)[0] == 0


@SLOW
@pytest.mark.parametrize("t", ["0.1", "0.5", "0.9"])
def test_matching_gradient(t):
    data = golden("few_step.npz", f"dmd/{t}/")
    x = jnp.asarray(golden("few_step.npz", "gaussians/")["x"])
    got = distill.matching_gradient(x, jnp.asarray(data["x0_real"]), jnp.asarray(data["x0_fake"]))
    np.testing.assert_allclose(got, data["gradient"], rtol=1e-9)


@pytest.mark.parametrize("shift", [0.4, MEAN - 1])
def test_score_distillation_is_the_slope_of_a_divergence(shift):
    """Poole et al. 2023, Eq. 4, with w = alpha/sigma: KL(q(x_t | x) || p(x_t)) at x = 1 + shift."""
    low, high = 0.1, 0.9
    density = weighting.uniform(CIRCLE._replace(t_min=low, t_max=high))
    loss = distill.score_distillation(
        lambda params, key, like, cond: jnp.broadcast_to(1 + params, like.shape),
        CIRCLE,
        lambda frozen: exact_denoiser(DATA, CIRCLE),
        density,
        lambda level: jnp.exp(level / 2),
    )
    batch = {"x": jnp.zeros((100_000, 1))}
    slope = jax.jit(jax.grad(lambda p, key: loss(p, key, batch, frozen={})[0]))
    t = jnp.linspace(low, high, 2001)
    alpha, sigma = CIRCLE.alpha(t), CIRCLE.sigma(t)

    def divergence(x):
        variance = alpha**2 * STD**2 + sigma**2
        share = sigma**2 / variance
        apart = alpha**2 * (x - MEAN) ** 2 / variance
        return jnp.trapezoid((share - jnp.log(share) - 1 + apart) / 2, t) / (high - low)

    wanted = jax.grad(divergence)(1.0 + shift)
    np.testing.assert_allclose(slope(shift, jax.random.key(0)), wanted, atol=0.03)


@SLOW
def test_inductive_moment_matching():
    """Groups of 64, whose pairs of a particle with itself weigh little."""
    schedule = schedules.vp_cosine()
    density = weighting.uniform(schedule)
    earlier = lambda t: 0.7 * t  # noqa: E731 - far enough to be seen

    def z(data):
        loss = distill.inductive_moment_matching(
            network_at(schedule, predict_v, data=data),
            schedule,
            predict_v,
            density,
            weighting.unit,
            256,
            earlier,
        )
        return np.abs(z_scores(gradients(loss, n=64))).max()

    assert z(WRONG) > 4 * z(DATA)


def test_laplace_discrepancy():
    """Two points at a distance d, alone in their groups: 2 - 2 exp(-w d)."""
    x, y = jnp.zeros((1, 1, 1)), jnp.full((1, 1, 1), 0.5)
    got = distill.laplace_discrepancy(x, y, jnp.asarray([3.0]))
    np.testing.assert_allclose(got, 2 - 2 * np.exp(-1.5), rtol=1e-6)


# Training.


def trained_errors(name):
    """Errors of a small network in 1, 2 and 4 steps, by benchmarks/few_step.py."""
    path = Path(__file__).parents[1] / "benchmarks" / "few_step.py"
    spec = importlib.util.spec_from_file_location("few_step_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    return benchmark.run(4000, (name,), width=32)[name]


@SLOW
@pytest.mark.parametrize(("name", "bound"), [("MeanFlow", 0.3), ("sCM, teacher", 0.2)])
def test_training_converges_to_the_map(name, bound, x32):
    """A small network, trained for half a minute, in one step; the flow itself is at 1.1 there."""
    assert trained_errors(name)[0] < bound


@SLOW
def test_a_consistency_function_is_as_good_in_more_steps(x32):
    """Those ask it about middle times, which are bad (0.18, 0.25, 0.38) where all weigh alike."""
    assert max(trained_errors("consistency distillation")) < 0.1


# Bad input.


def test_what_a_method_cannot_use_is_said():
    network = network_at(LINE, predict_velocity)
    with pytest.raises(InputError, match="rectified_flow"):
        distill.mean_flow(network, CIRCLE, predict_velocity, PAIRS)
    with pytest.raises(InputError, match=r"alpha\^2"):
        distill.scm(network, EDM, predict_v, PAIRS)
    with pytest.raises(InputError, match="steps"):
        distill.shortcut(network, LINE, predict_velocity, VELOCITY, steps=100)
    with pytest.raises(InputError, match="steps"):
        distill.progressive_distillation(
            network, LINE, predict_v, lambda frozen: None, 0, weighting.unit
        )
    with pytest.raises(InputError, match="divide"):
        distill.latent_consistency(network, LINE, predict_v, lambda *given: None, steps=7)
    with pytest.raises(InputError, match="teacher"):
        distill.teacher_of(network, LINE, predict_velocity)({"critic": EXACT})
