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

from diffjax import distill, schedules
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


def test_bad_input():
    given = shifted, lambda frozen: REFERENCE, SCHEDULE
    with pytest.raises(InputError, match="at least 2 steps"):
        distill.draft(*given, TS[-2:], lambda x0: x0[:, 0])
    with pytest.raises(InputError, match="at least 2 samples"):
        distill.advantages(jnp.zeros(6), 4)
