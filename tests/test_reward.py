"""Reward fine-tuning on a Gaussian, whose best law under a price of divergence is known.

With reward k x, price beta and a chain whose end is N(m, v), the best law is N(m + v k / beta, v):
each step's mean is moved by its variance times k/beta times the slope of E[x0 | x_s].
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import exact_denoiser, gaussian

from diffjax import distill, samplers, schedules, weighting
from diffjax.diffusion import q_posterior
from diffjax.distill.reward import rollout
from diffjax.errors import InputError
from diffjax.types import Prediction

pytestmark = pytest.mark.usefixtures("x64")
SCHEDULE = schedules.gvp()
TS = jnp.linspace(1.0, 0.0, 7)
K, BETA = 0.7, 0.5
BATCH = {"x": np.zeros((64, 1))}
REFERENCE = exact_denoiser(gaussian([0.5], 0.8), SCHEDULE)


def shifted(params):
    """The reference whose x0_hat is moved by params[k] in step k."""

    def denoiser(x, t, cond):
        step = jnp.argmin(jnp.abs(TS[:-1] - t))
        return Prediction(REFERENCE(x, t, cond).x0 + params[step])

    return denoiser


@jax.jit
def step_of_reference(x, t, s):
    """Mean and variance of the reference's step from x, and what one more unit of x0_hat adds."""
    x0 = REFERENCE(x, t, None).x0
    mean, variance, _ = q_posterior(SCHEDULE, x0, x, t, s)
    return mean, variance, q_posterior(SCHEDULE, x0 + 1, x, t, s)[0] - mean, x0


def affine_of(y):
    """Offset and slope of an affine function from its values at 0 and 1."""
    return float(y[0, 0]), float(y[1, 0] - y[0, 0])


def chain():
    """Mean and variance of the reference's end, best shift of each step, and slope of its price."""
    x, steps = jnp.asarray([[0.0], [1.0]]), []
    for t, s in itertools.pairwise(TS[:-1]):
        mean, variance, gain, _ = step_of_reference(x, t, s)
        steps.append((*affine_of(mean), float(variance), float(gain[0, 0])))
    offset, slope = affine_of(step_of_reference(x, TS[-2], TS[-2])[3])
    mean, variance = 0.0, 1.0
    for a, b, noise, _ in steps:
        mean, variance = a + b * mean, b**2 * variance + noise
    best, price, onward = np.zeros(len(TS) - 1), np.zeros(len(TS) - 1), slope
    for k, (_, b, noise, gain) in reversed(list(enumerate(steps))):
        best[k], price[k] = noise * onward * K / BETA / gain, BETA * gain**2 / noise
        onward *= b
    return offset + slope * mean, slope**2 * variance, best, price


def losses():
    given = shifted, lambda frozen: REFERENCE, SCHEDULE, TS, lambda x0: K * x0[:, 0]
    return (
        distill.draft(*given, beta=BETA),
        distill.policy_gradient(*given, beta=BETA, group=4, scaled=False),
    )


def test_the_best_shift_has_no_gradient_and_the_known_law():
    _, variance, best, _ = chain()
    draft, _ = losses()
    gradient = jax.jit(jax.grad(draft, has_aux=True))
    slope, aux = gradient(jnp.asarray(best), jax.random.key(0), BATCH, frozen={})
    np.testing.assert_allclose(slope, 0, atol=1e-12)
    np.testing.assert_allclose(aux["divergence"], variance * K**2 / BETA**2 / 2, rtol=1e-9)
    away, _ = gradient(jnp.asarray(best) + 0.1, jax.random.key(0), BATCH, frozen={})
    assert (away[:-1] > 1e-3).all()


@pytest.mark.exhaustive
def test_the_law_of_the_best_shift():
    mean, variance, best, _ = chain()
    x = jax.random.normal(jax.random.key(1), (40_000, 1))
    run = jax.jit(
        lambda key, p, x: (
            rollout(
                key,
                SCHEDULE,
                lambda x, t: shifted(p)(x, t, None),
                lambda x, t: REFERENCE(x, t, None),
                x,
                TS,
            ).x0
        )
    )
    x0 = run(jax.random.key(2), jnp.asarray(best), x)
    got = [x0.mean(), x0.var()]
    np.testing.assert_allclose(got, [mean + variance * K / BETA, variance], atol=0.02)


@pytest.mark.exhaustive
def test_the_policy_gradient_is_the_gradient_through_the_sampler():
    """But for the share 1/group of what goes through the advantages."""
    draft, policy = losses()
    price = chain()[3]
    params = jnp.linspace(0.3, -0.2, len(TS) - 1)
    exact, _ = jax.jit(jax.grad(draft, has_aux=True))(params, jax.random.key(0), BATCH, frozen={})
    many = {"x": np.zeros((40_000, 1))}
    found, _ = jax.jit(jax.grad(policy, has_aux=True))(params, jax.random.key(1), many, frozen={})
    direct = price * params
    np.testing.assert_allclose(found, 0.75 * (exact - direct) + direct, atol=0.02)
    assert jnp.abs(exact).max() > 0.1


@pytest.mark.exhaustive
def test_a_quadratic_reward_is_learned():
    """Reward -c (x - 2)^2 / 2: the best law has precision 1/v + c/beta; here up to finite steps."""
    mean, variance, _, _ = chain()
    c = 0.5

    def affine(params):
        def denoiser(x, t, cond):
            a, b = params[jnp.argmin(jnp.abs(TS[:-1] - t))]
            return Prediction(REFERENCE(x, t, cond).x0 + a + b * x)

        return denoiser

    loss = distill.draft(
        affine,
        lambda frozen: REFERENCE,
        SCHEDULE,
        TS,
        lambda x0: -c * (x0[:, 0] - 2) ** 2 / 2,
        beta=BETA,
    )

    optimizer = optax.adam(0.03)

    def step(carry, key):
        params, state = carry
        slope, aux = jax.grad(loss, has_aux=True)(
            params, key, {"x": jnp.zeros((512, 1))}, frozen={}
        )
        updates, state = optimizer.update(slope, state)
        return (params + updates, state), aux["reward"] - BETA * aux["divergence"]

    start = jnp.zeros((len(TS) - 1, 2))
    keys = jax.random.split(jax.random.key(3), 600)
    run = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), keys))
    _, value = run(start)
    # beta log E exp(reward / beta) under the reference is the most that can be had
    precision = 1 / variance + c / BETA
    gap = 2 - mean
    most = -BETA * np.log(variance * precision) / 2 - c * gap**2 / (2 * variance * precision)
    assert most - 0.05 * abs(most) < value[-100:].mean() < most + 0.01
    assert value[:3].mean() < most - 0.1


def covariance(x, t, centre, width):
    """Cov(r, x0 | x_t) of the reference's law for r = exp(-(x0 - centre)^2 / (2 width^2))."""
    t = jnp.broadcast_to(t, x.shape[:1])[:, None]
    alpha, sigma, mean = SCHEDULE.alpha(t), SCHEDULE.sigma(t), REFERENCE(x, t[:, 0], None).x0
    spread = 0.8**2 * sigma**2 / (alpha**2 * 0.8**2 + sigma**2)
    total = width**2 + spread
    share = width / jnp.sqrt(total) * jnp.exp(-((mean - centre) ** 2) / (2 * total))
    return share * (centre - mean) * spread / total


@pytest.mark.parametrize("beta", [0.5, pytest.param(2.0, marks=pytest.mark.exhaustive)])
def test_negative_aware_is_at_rest_at_the_old_policy_moved_by_the_covariance(beta):
    """Zheng et al. 2026, Theorem 3.2, with a Gaussian policy and a Gaussian bump as the reward."""
    centre, width = 1.2, 0.6

    def denoiser(params):
        def predict(x, t, cond):
            when = jnp.broadcast_to(t, x.shape[:1])[:, None]
            features = jnp.stack([jnp.ones_like(x), x, jnp.tanh(2 * x), jnp.cos(x - when)])
            moved = REFERENCE(x, t, None).x0 + jnp.tensordot(params["a"], features, 1)
            return Prediction(moved + params["gain"] * 2 / beta * covariance(x, t, centre, width))

        return predict

    loss = distill.negative_aware(
        denoiser,
        samplers.heun(SCHEDULE),
        SCHEDULE,
        jnp.linspace(1.0, 0.0, 41),
        lambda x0: jnp.exp(-((x0[:, 0] - centre) ** 2) / (2 * width**2)),
        weighting.uniform(SCHEDULE),
        weighting.unit,
        beta=beta,
        good=lambda rewards: rewards,
    )
    old = {"gain": jnp.asarray(0.0), "a": jnp.zeros(4)}

    @jax.jit
    def slopes(params):
        one = lambda key: jax.grad(loss, has_aux=True)(params, key, BATCH, teacher_params=old)[0]  # noqa: E731
        g = jax.lax.map(one, jax.random.split(jax.random.key(0), 48))
        return jnp.concatenate([g["gain"][:, None], g["a"]], 1)

    def z(gain):
        g = slopes({"gain": jnp.asarray(gain), "a": jnp.zeros(4)})
        return jnp.abs(g.mean(0) / (g.std(0) / np.sqrt(len(g)))).max()

    assert z(1.0) < 4.5
    assert z(0.5) > 10


def test_a_policy_that_is_negative_aware_earns_more_and_keeps_its_past():
    """Rewards that have no derivative: the share of samples above 1, by groups."""

    def denoiser(params):
        return lambda x, t, cond: Prediction(REFERENCE(x, t, None).x0 + params)

    loss = distill.negative_aware(
        denoiser,
        samplers.ddim(SCHEDULE),
        SCHEDULE,
        TS,
        lambda x0: (x0[:, 0] > 1).astype(x0.dtype),
        weighting.uniform(SCHEDULE),
        weighting.unit,
        decay=0.5,
    )
    optimizer = optax.adam(0.03)

    @jax.jit
    def step(carry, key):
        params, state, old = carry
        (_, aux), slope = jax.value_and_grad(loss, has_aux=True)(
            params, key, BATCH, teacher_params=old
        )
        change, state = optimizer.update(slope, state)
        return (params + change, state, aux["context"]["teacher_params"]), (aux["reward"], old)

    begun = jnp.asarray(0.0)
    keys = jax.random.split(jax.random.key(0), 60)
    end, (earned, olds) = jax.lax.scan(step, (begun, optimizer.init(begun), begun), keys)
    assert earned[-10:].mean() > earned[:3].mean() + 0.2
    assert 0 < olds[-1] < end[0]
    with pytest.raises(InputError, match="`teacher_params`"):
        loss(begun, jax.random.key(1), BATCH)


def test_bad_input():
    given = shifted, lambda frozen: REFERENCE, SCHEDULE
    with pytest.raises(InputError, match="at least 2 steps"):
        distill.draft(*given, TS[-2:], lambda x0: x0[:, 0])
    with pytest.raises(InputError, match="at least 2 samples"):
        distill.advantages(jnp.zeros(6), 4)
