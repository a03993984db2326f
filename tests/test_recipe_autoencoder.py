"""Autoencoders as a recipe: their kinds learn, and their samples are reconstructions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import recipe
from diffjax.errors import InputError
from diffjax.run.draw import usual_draw

SHAPE = (16, 16, 3)
EXHAUSTIVE = pytest.mark.exhaustive
SMALL = {"channels": (8,), "latent_channels": 2, "codes": 16}
KINDS = [
    {},
    pytest.param({"kind": "vq"}, marks=EXHAUSTIVE),
    pytest.param({"adversarial": 0.5, "adversarial_start": 2, "patch": 4}, marks=EXHAUSTIVE),
]


def pictures(n, seed=0):
    """Pictures of one colour each."""
    colour = np.random.default_rng(seed).uniform(-1, 1, (n, 1, 1, 3))
    return jnp.asarray(np.broadcast_to(colour, (n, *SHAPE)), jnp.float32)


def trained(parts, steps):
    """Parameters after some steps of Adam, and the reconstruction error before and after."""
    params, adam = parts.init(jax.random.key(0)), optax.adam(3e-3)
    state, context = adam.init(params), parts.context or {}

    @jax.jit
    def step(params, state, context, key):
        grad = jax.value_and_grad(parts.loss, has_aux=True)
        (_, aux), grads = grad(params, key, {"x": pictures(16)}, **context)
        updates, state = adam.update(grads, state)
        context = aux.get("context", {})
        return optax.apply_updates(params, updates), state, context, aux["reconstruction"]

    errors = []
    for key in jax.random.split(jax.random.key(1), steps):
        params, state, context, error = step(params, state, context, key)
        errors.append(float(error))
    return params, errors, context


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_its_sample_is_the_reconstruction(kind):
    parts = recipe.autoencoder(**{**SMALL, **kind})(SHAPE)
    params, errors, context = trained(parts, 30)
    assert np.mean(errors[-3:]) < 0.6 * errors[0]
    assert int(context.get("adversarial_step", 30)) == 30
    coder, x = parts.autoencoder, pictures(3, seed=1)
    mean, logvar = coder.encode(params, x)
    side = 16 // kind.get("patch", 2)
    assert mean.shape[1:] == logvar.shape[1:] == coder.shape == (side, side, 2)
    if kind.get("kind") == "vq":
        assert (logvar == -jnp.inf).all()
        assert len(np.unique(np.asarray(coder.decode(params, mean)))) > 1
    model = recipe.autoencoder_model(parts, SHAPE)
    draw, ts, scale = usual_draw(model)
    drawn, _ = draw.samples(params, {}, jax.random.key(0), ts, {"x": np.asarray(x)}, 3, scale)
    expected = np.clip(coder.decode(params, mean), -1, 1)
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


def test_bytes_and_floats_are_the_same_picture():
    (condition,) = recipe.autoencoder_model(recipe.autoencoder(**SMALL)(SHAPE), SHAPE).conditions
    raw = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
    found = condition.encode({}, {"x": jnp.asarray(raw)})["x"]
    np.testing.assert_allclose(found, raw / 127.5 - 1, atol=1e-6)
    with pytest.raises(InputError, match="give --image FILE"):
        condition.flags(2)
    with pytest.raises(InputError, match=r"pictures of at least 16 pixels a side.*got 8 x 8"):
        recipe.autoencoder(**SMALL, adversarial=1.0)((8, 8, 3))
