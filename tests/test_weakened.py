"""Networks made worse at call time: layers left out, attention perturbed or smoothed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny import inputs, randomised

from diffjax.errors import InputError
from diffjax.models import (
    DiT,
    blurred_attention,
    by_name,
    network,
    perturbed_attention,
    skip_layers,
    smoothed_attention,
)
from diffjax.models.position import cells
from diffjax.models.transformer import BlockContext, SelfAttention
from diffjax.models.weakened import blur


class Attends(nn.Module):
    """One self-attention of tokens, by a name."""

    @nn.compact
    def __call__(self, x, t, cond, train=False):
        context = BlockContext(where=cells(1, 5))
        return SelfAttention(heads=2, name="attention")(x, context)


def attended():
    """The network, its parameters, tokens, and q, k and v of them by hand (B, T, heads, D)."""
    module, x = Attends(), jax.random.normal(jax.random.key(0), (2, 5, 8))
    params = randomised(module, x, None, None)
    own = params["attention"]
    qkv = x @ own["qkv"]["dense"]["kernel"] + own["qkv"]["dense"]["bias"][None, None]
    q, k, v = jnp.split(qkv.reshape(2, 5, 6, 4), 3, axis=2)

    def out(h):
        return h.reshape(2, 5, 8) @ own["out"]["kernel"] + own["out"]["bias"][None, None]

    return network(module), params, x, (q, k, v), out


def test_perturbed_attention_is_of_each_token_to_itself(x64):
    net, params, x, (_, _, v), out = attended()
    weaker = perturbed_attention(net, by_name("attention"))
    np.testing.assert_allclose(weaker(params, x, None, None, None), out(v), atol=1e-6)
    assert jnp.abs(net(params, x, None, None, None) - out(v)).max() > 1e-3  # and not for good


def test_smoothed_attention_is_of_the_mean_query(x64):
    net, params, x, (q, k, v), out = attended()
    logits = jnp.einsum("bhd,bshd->bhs", q.mean(1), k) / 2
    one = jnp.einsum("bhs,bshd->bhd", jax.nn.softmax(logits), v)
    weaker = smoothed_attention(net, by_name("attention"))
    wanted = out(jnp.broadcast_to(one[:, None], v.shape))
    np.testing.assert_allclose(weaker(params, x, None, None, None), wanted, atol=1e-6)


@pytest.mark.exhaustive
def test_a_skipped_block_is_one_whose_gates_are_closed(x64):
    x, t, cond = inputs(dtype=np.float64)
    module = DiT(patch_size=2, width=8, depth=2, heads=2, num_classes=3)
    params = randomised(module, x, t, cond)
    net = network(module)
    closed = params | {"block_1": params["block_1"] | _closed(params["block_1"])}
    weaker = skip_layers(net, lambda path: path == ("block_1",))
    np.testing.assert_allclose(
        weaker(params, x, t, cond, None), net(closed, x, t, cond, None), atol=1e-12
    )
    with pytest.raises(InputError, match="no module of the network is chosen"):
        skip_layers(net, by_name("block_7"))(params, x, t, cond, None)


def _closed(block):
    """The modulation of a block at zero."""
    return {"modulation": jax.tree.map(jnp.zeros_like, block["modulation"])}


class AttendsInPictures(nn.Module):
    """One self-attention of the pixels of a picture, by a name."""

    @nn.compact
    def __call__(self, x, t, cond, train=False):
        batch, height, width, channels = x.shape
        context = BlockContext(where=cells(height, width))
        tokens = x.reshape(batch, height * width, channels)
        return SelfAttention(heads=2, name="attention")(tokens, context).reshape(x.shape)


@pytest.mark.exhaustive
def test_blurred_attention_lies_between_the_network_and_the_mean_query(x64):
    module, x = AttendsInPictures(), jax.random.normal(jax.random.key(0), (2, 4, 6, 8))
    params, chosen = randomised(module, x, None, None), by_name("attention")

    def out(net):
        return net(params, x, None, None, None)

    def blurred(sigma):
        return out(blurred_attention(network(module), chosen, sigma))

    plain, smooth = out(network(module)), out(smoothed_attention(network(module), chosen))
    np.testing.assert_allclose(blurred(1e-3), plain, atol=1e-6)
    np.testing.assert_allclose(blurred(1e4), smooth, atol=1e-6)
    gaps = [float(jnp.abs(blurred(s) - smooth).mean()) for s in (0.5, 1.0, 2.0, 4.0)]
    assert gaps == sorted(gaps, reverse=True)
    assert np.isfinite(jax.grad(lambda s: blurred(s).sum())(1.0))


def test_blur_spreads_a_point_by_its_standard_deviation(x64):
    height, width, sigma = 41, 61, 3.0
    point = jnp.zeros((1, height * width, 1)).at[0, 20 * width + 30].set(1)
    spread = np.asarray(blur(point, (2 * height, 2 * width), sigma)).reshape(height, width)
    rows, columns = np.arange(height) - 20, np.arange(width) - 30
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(1) * rows**2).sum() == pytest.approx(sigma**2, rel=1e-4)
    assert (spread.sum(0) * columns**2).sum() == pytest.approx(sigma**2, rel=1e-4)
    with pytest.raises(InputError, match="7 tokens are no grid over a picture of"):
        blur(jnp.zeros((1, 7, 1)), (4, 4), 1.0)
