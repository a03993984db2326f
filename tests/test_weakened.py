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
    by_name,
    network,
    perturbed_attention,
    skip_layers,
    smoothed_attention,
)
from diffjax.models.position import cells
from diffjax.models.transformer import BlockContext, SelfAttention


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
