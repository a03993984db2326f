"""Networks that represent the same denoiser are the same."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, TWO_MOONS, exact_denoiser, gaussian

from diffjax import diffusion, schedules, weighting
from diffjax.errors import InputError
from diffjax.losses import denoising_loss
from diffjax.models import adm_unet, network
from diffjax.parameterization import at_steps, make_denoiser, predict_eps, predict_v, predict_x0

pytestmark = pytest.mark.usefixtures("x64")

SCHEDULE = SCHEDULES["vp_linear"]
X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 2)), jnp.float32)


# What each network says of (x_t, t) when it knows E[x0 | x_t].
def says_x0(schedule, x_t, t, x0):
    return x0


# parameterization, what it predicts, the weight under which its squared error is that of x0
KINDS = {
    "x0": (predict_x0, says_x0, weighting.unit),
    "eps": (predict_eps, diffusion.eps_from_x0, weighting.snr),
    "v": (predict_v, diffusion.v_from_x0, weighting.snr_plus_one),
}
KIND = pytest.mark.parametrize(("predicts", "says", "weight"), KINDS.values(), ids=KINDS)


def network_of(schedule, says):
    """The network that knows the exact denoiser."""
    denoiser = exact_denoiser(TWO_MOONS, schedule)

    def network(params, x, c_noise, cond, key):
        t = c_noise / 1000
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        x_t = x * jnp.sqrt(alpha**2 + sigma**2)  # the input has unit variance for unit data
        return says(schedule, x_t, t, denoiser(x_t, t, cond).x0)

    return network


@KIND
@pytest.mark.parametrize("name", ["linear", "vp_cosine", "edm"])
def test_same_denoiser(name, predicts, says, weight):
    schedule = SCHEDULES[name]
    denoiser = jax.jit(make_denoiser(network_of(schedule, says), None, schedule, predicts))
    x, t = X.astype(float), jnp.linspace(0.05, 0.9, 6)
    expected = jax.jit(exact_denoiser(TWO_MOONS, schedule))(x, t, None).x0
    np.testing.assert_allclose(denoiser(x, t, None).x0, expected, rtol=1e-7, atol=1e-9)
    scalar = denoiser(x, jnp.asarray(0.5), None).x0
    np.testing.assert_allclose(scalar[2], denoiser(x, jnp.full(6, 0.5), None).x0[2], rtol=1e-12)


@pytest.mark.exhaustive
@KIND
def test_weighted_loss_is_that_of_the_prediction(predicts, says, weight):
    """A network wrong by 0.1 everywhere, of data that is a point, has the loss 0.01 exactly."""
    point = gaussian([0.3, -0.2], 0.0)

    def network(params, x, c_noise, cond, key):
        t = c_noise / 1000
        x0 = exact_denoiser(point, SCHEDULE)(x, t, cond).x0
        return says(SCHEDULE, x, t, x0) + params

    loss = denoising_loss(network, SCHEDULE, predicts, weight, weighting.stratified(SCHEDULE))
    batch = {"x": jnp.broadcast_to(jnp.asarray(point.means), (16, 2))}
    value, aux = loss(jnp.asarray(0.1), jax.random.key(0), batch)
    np.testing.assert_allclose(value, 0.01, rtol=1e-6)
    assert set(aux) == {"context"}


@pytest.mark.exhaustive
def test_losses_agree_under_their_weights():
    """Any weight of x0 is the same loss for all three networks of one (wrong) denoiser."""
    values = []
    for predicts, says, _ in KINDS.values():
        shifted = partial(lambda says, s, x, t, x0: says(s, x, t, x0 * 0.9), says)
        loss = denoising_loss(
            network_of(SCHEDULE, shifted),
            SCHEDULE,
            predicts,
            weighting.min_snr(),
            weighting.uniform(SCHEDULE),
        )
        values.append(loss(None, jax.random.key(0), {"x": X.astype(float)})[0])
    np.testing.assert_allclose(values, values[0], rtol=1e-7)
    assert values[0] > 0.01


def test_learned_variance_is_the_second_half():
    x = jnp.ones((2, 3, 3, 1))

    def network(params, x, c_noise, cond, key):
        return jnp.concatenate([0 * x + 0.25, 0 * x - 0.5], axis=-1)

    out = make_denoiser(network, None, SCHEDULE, predict_x0)(x, 0.5, None)
    np.testing.assert_array_equal(out.x0, np.full(x.shape, 0.25))
    np.testing.assert_array_equal(out.variance_fraction, np.full(x.shape, 0.25))  # (-0.5 + 1) / 2


@pytest.mark.parametrize("shape", [(2, 3, 3, 1), (2, 3, 3, 4), (2, 1, 1, 3), (1, 3, 3, 3), (2, 27)])
def test_an_output_of_another_shape_is_refused(shape):
    """One channel over three would broadcast."""
    denoiser = make_denoiser(lambda *_: jnp.ones(shape), None, SCHEDULE, predict_v)
    with pytest.raises(InputError, match=r"the shape of x, .2, 3, 3, 3., or twice its channels"):
        denoiser(jnp.ones((2, 3, 3, 3)), 0.5, None)


@pytest.mark.parametrize(
    ("unused", "names"),
    [
        ("'pooled', 'tokens'", ("label", "tokens", "pooled")),
        ("'token_mask', 'tokens'", ("label", "tokens", "token_mask")),
        ("'pooled'", ("label", "pooled")),
    ],
)
def test_a_condition_that_the_network_does_not_use_is_refused_by_name(unused, names):
    """Read or not: a U-Net without cross-attention reads the tokens and leaves them."""
    module = adm_unet(channels=8, multipliers=(1,), blocks=1, attention_levels=(), num_classes=4)
    arrays = {"label": jnp.zeros(2, int), "tokens": jnp.ones((2, 3, 5)), "pooled": jnp.ones(2)}
    cond = {name: arrays.get(name, jnp.ones((2, 3), bool)) for name in names}
    x, t = jnp.ones((2, 4, 4, 1)), jnp.ones(2)
    params = jax.eval_shape(module.init, jax.random.key(0), x, t, cond)["params"]
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), params)
    with pytest.raises(InputError, match=f"does not use cond.{unused}.: of the conditions"):
        network(module)(params, x, t, cond, None)


def test_a_network_of_steps_is_given_the_indices_of_its_beta_table():
    table = schedules.linear_betas(50)
    schedule = schedules.from_betas(table)
    k = jnp.arange(50)
    times = (k + 1) / 50
    given = at_steps(predict_eps, 50)(schedule, times).c_noise
    np.testing.assert_allclose(given, k, atol=1e-12)
    np.testing.assert_allclose(schedule.alpha(times) ** 2, np.cumprod(1 - table), rtol=1e-10)
