"""Cascades: on Gaussians their stages compose to the exact law, and what a stage is shown."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn
from oracles import network_of
from PIL import Image

from diffjax import cascade, diffusion, grids, losses, samplers, schedules, weighting
from diffjax.data.image import fit
from diffjax.data.resize import reduced, smaller, with_small
from diffjax.data.source import Arrays, Source
from diffjax.errors import InputError
from diffjax.evaluation.resize import resize, torch_bilinear
from diffjax.models import Patched, SuperResolution, TwoTimes, adm_unet
from diffjax.parameterization import predict_x0
from diffjax.run.stages import stage_keys
from diffjax.types import Prediction

MEAN = np.array([0.7, -0.4, 0.1, 1.2])
ROOT = np.random.default_rng(3).standard_normal((4, 4)) / 2 + np.eye(4)
COV = ROOT @ ROOT.T
HALVE = np.kron(np.eye(2), np.full((1, 2), 0.5))  # means of neighbours: the small picture
SMALL = HALVE @ COV @ HALVE.T
FLOW, COSINE = schedules.rectified_flow(), schedules.vp_cosine()


def posterior(mean, cov, observed, matrix, noise):
    """Mean of x ~ N(mean, cov) given observed = matrix x + N(0, noise)."""
    cross = cov @ matrix.T
    return mean + cross @ jnp.linalg.solve(matrix @ cross + noise, observed - matrix @ mean)


def base_denoiser(cov):
    """E[small | small_t] of N(HALVE MEAN, cov), on the flow."""

    def one(x, t):
        a, eye = FLOW.alpha(t), jnp.eye(2)
        return posterior(HALVE @ MEAN, cov, x, a * eye, FLOW.sigma(t) ** 2 * eye)

    return lambda x, t, cond: Prediction(
        jax.vmap(one)(x, jnp.broadcast_to(t, x.shape[:1])),
    )


def large_denoiser(of_noise):
    """E[large | large_t, z_s], on the flow: of z_s = alpha(s) small + sigma(s) eps."""

    def one(x, t, z, level):
        b, r = of_noise.alpha(level), of_noise.sigma(level)
        matrix = jnp.concatenate([FLOW.alpha(t) * jnp.eye(4), b * HALVE])
        noise = jnp.concatenate([jnp.full(4, FLOW.sigma(t) ** 2), jnp.full(2, r**2)])
        return posterior(jnp.asarray(MEAN), COV, jnp.concatenate([x, z]), matrix, jnp.diag(noise))

    def denoiser(x, t, cond):
        t = jnp.broadcast_to(t, x.shape[:1])
        return Prediction(jax.vmap(one)(x, t, cond["small"], cond["small_level"]))

    return denoiser


KEY, RK4 = jax.random.key(0), samplers.rk4(FLOW)
GRID = grids.trailing(FLOW, 300)


@jax.jit
def draw_small(cov, z, ts):
    return samplers.sample(jax.random.clone(KEY), base_denoiser(cov), RK4, z, ts)


@partial(jax.jit, static_argnames="of_noise")
def draw_large(z, small, level, of_noise):
    cond = {"small": small, "small_level": level}
    denoiser = large_denoiser(of_noise)
    return samplers.sample(jax.random.clone(KEY), denoiser, RK4, z, GRID, cond)


def error(level, told=None, cov=SMALL, of_noise=FLOW, truncated=False):
    """How far mean and covariance of the drawn large picture are from the data's; no draws.

    Every step is affine in the noise: what the cascade makes of zeros and of unit vectors is both.
    """
    units = jnp.concatenate([jnp.zeros((1, 8)), jnp.eye(8)])
    if truncated:
        small = draw_small(cov, units[:, :2], cascade.until(GRID, level))
    else:
        small = draw_small(cov, units[:, :2], GRID)
        small = diffusion.q_sample(of_noise, small, level, units[:, 2:4])
    level = jnp.full(9, level if told is None else told)
    large = np.asarray(draw_large(units[:, 4:], small, level, of_noise))
    columns = large[1:] - large[0]
    return max(np.abs(large[0] - MEAN).max(), np.abs(columns.T @ columns - COV).max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("level", "options"),
    [
        (0.1, {}),
        (0.6, {}),
        (0.6, {"truncated": True}),
        pytest.param(0.1, {"of_noise": COSINE}, marks=pytest.mark.exhaustive),
        pytest.param(0.6, {"of_noise": COSINE}, marks=pytest.mark.exhaustive),
        pytest.param(0.1, {"truncated": True}, marks=pytest.mark.exhaustive),
    ],
)
def test_stages_compose_to_the_exact_law(level, options):
    assert error(level, **options) < 5e-4
    assert error(level, told=0.0, **options) > 0.03  # a stage that is told another level


@pytest.mark.usefixtures("x64")
def test_the_error_of_the_base_counts_less_at_a_higher_level():
    wrong = 0.6 * SMALL
    found = [error(level, cov=wrong) for level in (0.0, 0.2, 0.5, 0.8, 0.99)]
    assert (np.diff(found) < 0).all()
    assert found[-1] < 0.02 < 0.1 < found[0]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("told", ["level", "nothing"])
def test_training_asks_for_the_denoiser_of_the_noised_condition(told):
    """The gradient of the loss is zero at the exact denoiser, and at no other."""
    exact = large_denoiser(COSINE)

    def denoiser(x, t, cond):
        level = cond["small_level"] if told == "level" else jnp.zeros_like(cond["small_level"])
        return exact(x, t, cond | {"small_level": level})

    net = network_of(denoiser, FLOW, predict_x0)
    loss = losses.denoising_loss(net, FLOW, predict_x0, weighting.unit, weighting.uniform(FLOW))
    loss = cascade.noised_condition(loss, COSINE, most=0.7)
    x = MEAN + np.random.default_rng(0).standard_normal((4000, 4)) @ ROOT.T
    batch = {"x": jnp.asarray(x), "small": jnp.asarray(x @ HALVE.T)}
    grad = jax.jit(jax.grad(lambda params, key: loss(params, key, batch)[0]))
    keys = jax.random.split(jax.random.key(1), 20)
    grads = np.stack([grad({"a": jnp.zeros(5)}, key)["a"] for key in keys])
    z = grads.mean(0) / (grads.std(0) / np.sqrt(len(grads) - 1))
    assert np.abs(z).max() < 4.5 if told == "level" else np.abs(z).min() > 10


def test_training_draws_every_level_and_noises_to_it():
    seen = {}

    def loss(params, key, batch, **context):
        seen.update(batch)
        return jnp.zeros(()), {}

    small = jnp.broadcast_to(jnp.linspace(-1, 1, 12).reshape(1, 2, 2, 3), (20_000, 2, 2, 3))
    cascade.noised_condition(loss, COSINE, most=0.5)(
        {}, jax.random.key(0), {"x": small, "small": small}
    )
    level = np.asarray(seen["small_level"])
    assert 0 <= level.min() < 0.001 < 0.499 < level.max() < 0.5
    np.testing.assert_allclose(np.histogram(level, 5)[0] / 20_000, 0.2, atol=0.012)
    eps = np.asarray(seen["small"]) - np.asarray(COSINE.alpha(level))[:, None, None, None] * small
    eps = eps / np.asarray(COSINE.sigma(level))[:, None, None, None]
    np.testing.assert_allclose(eps.mean(0), 0, atol=0.035)
    np.testing.assert_allclose(np.cov(eps.reshape(20_000, -1).T), np.eye(12), atol=0.05)
    np.testing.assert_array_equal(seen["x"], small)


def test_the_noise_of_a_sample_depends_on_its_index_alone():
    small = jax.random.normal(jax.random.key(5), (6, 4, 4, 3))
    key = jax.random.key(7)
    whole = cascade.noised(jax.random.clone(key), COSINE, small, 0.3)
    last = cascade.noised(jax.random.clone(key), COSINE, small[4:], 0.3, first=4)
    np.testing.assert_array_equal(whole[4:], last)
    np.testing.assert_array_equal(cascade.noised(key, COSINE, small, 0.0), small)
    eps = np.asarray((whole - COSINE.alpha(0.3) * small) / COSINE.sigma(0.3)).reshape(6, -1)
    assert np.abs(np.corrcoef(eps) - np.eye(6)).max() < 0.6
    assert 0.8 < eps.std() < 1.2


def test_the_network_sees_the_small_picture_enlarged_and_its_level():
    g = np.random.default_rng(0)
    x, small = g.standard_normal((2, 8, 12, 3)), g.uniform(0, 255, (2, 4, 3, 3))
    seen = {}

    class Look(nn.Module):
        @nn.compact
        def __call__(self, x, t, cond, train=False):
            seen.update(cond, both=x)
            return x[..., :3] * cond["small_level"][:, None, None, None]

    cond = {"small": jnp.asarray(small), "small_level": jnp.array([0.1, 0.3]), "label": 1}
    SuperResolution(Look()).apply({}, jnp.asarray(x), jnp.zeros(2), cond)
    assert seen.keys() == {"both", "small_level", "label"}
    np.testing.assert_array_equal(seen["both"][..., :3], np.float32(x))
    want = np.stack([resize(image, (8, 12), torch_bilinear) for image in small])
    np.testing.assert_allclose(seen["both"][..., 3:], want, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(seen["small_level"], [1, 3], rtol=1e-6)
    with pytest.raises(InputError, match=r"needs cond\['small_level'\]"):
        SuperResolution(Look()).apply({}, jnp.asarray(x), jnp.zeros(2), {"small": small})


def test_a_trained_enlarger_depends_on_picture_level_and_noise():
    unet = adm_unet(8, (1,), 1, (), out_channels=8).clone(vector=True)
    module = SuperResolution(TwoTimes(Patched(unet, 2), ("small_level",)))
    x, t, _ = tiny.inputs()
    cond = {"small": x[:, ::2, ::2], "small_level": jnp.full(3, 0.2), "vector": jnp.ones((3, 4))}
    params = tiny.randomised(module, x, t, cond)
    base = tiny.apply(module, params, x, t, cond)
    assert base.shape == x.shape
    for change in (
        {"small": -cond["small"]},
        {"small_level": jnp.full(3, 0.4)},
        {"vector": -cond["vector"]},
    ):
        assert np.abs(tiny.apply(module, params, x, t, cond | change) - base).max() > 1e-3


def test_small_pictures_of_a_source():
    image = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    source = Source(Arrays(x=image, label=np.arange(2)), (12, 12, 3), 2)
    both = with_small(source, 4).examples[1]
    np.testing.assert_array_equal(both["x"], image[1])
    assert (both["small_level"], both["label"]) == (0, 1)
    # What a folder of these images at size 4 would be trained on.
    fitted = fit(Image.fromarray(image[1]), 4)
    np.testing.assert_array_equal(both["small"], fitted / np.float32(127.5) - 1)
    base = smaller(source, 4)
    assert base.shape == (4, 4, 3)
    np.testing.assert_array_equal(base.examples[1]["x"], both["small"])
    floats = reduced(image[1] / np.float32(127.5) - 1, 4)
    np.testing.assert_allclose(floats, both["small"], atol=0.009)  # without rounding to bytes
    assert np.abs(floats).max() <= 1
    with pytest.raises(InputError, match="made of larger ones"):
        with_small(source, 12)


def test_the_noise_of_a_stage_is_not_that_of_another():
    """A stage's keys are not those of its own draw, nor is its base's seed its own."""
    data = lambda key: tuple(np.asarray(jax.random.key_data(key)).tolist())  # noqa: E731
    seen = set()
    for seed in range(4):
        below, noise = stage_keys(seed)
        draws = [jax.random.split(jax.random.key(s)) for s in (seed, below)]
        seen |= {data(key) for key in (noise, *draws[0], *draws[1])}
    assert len(seen) == 20


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cascade.noised_condition(lambda: None, COSINE, most=1.5), "at most 1"),
        (lambda: cascade.until(GRID, 1.0), "below the grid's first time"),
        (lambda: cascade.check_level(1.0), "below 1"),
        (lambda: cascade.check_level(-0.1), "at least 0"),
        (lambda: cascade.check_level(float("nan")), "at least 0"),
    ],
)
def test_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
