"""The parts of modern transformers, and the networks put together from them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import apply, check_forms, check_gradient, close, inputs, randomised

from diffjax.errors import InputError
from diffjax.models.dit import CrossBlock, DiT, DiTBlock
from diffjax.models.mlp import ResidualMLP
from diffjax.models.mmdit import JointBlock, MMDiT
from diffjax.models.position import Cells, cells, no_position, rope_2d, sincos_2d
from diffjax.models.transformer import (
    MLP,
    QKV,
    BlockContext,
    LayerNorm,
    RMSNorm,
    SelfAttention,
    SwiGLU,
)
from diffjax.models.uvit import UViT, no_skip
from diffjax.pretrained.naming import count

SMALL = {"width": 16, "heads": 2}
MODERN = partial(
    DiTBlock,
    norm=partial(RMSNorm, affine=False),
    mlp=SwiGLU,
    attention=partial(SelfAttention, qkv=partial(QKV, qk_norm=RMSNorm, rotate=rope_2d)),
)
NETWORKS = {
    "modern": DiT(**SMALL, depth=1, num_classes=3, block=MODERN, position=no_position),
    "cross": DiT(**SMALL, depth=1, num_classes=3, block=CrossBlock),
    "mmdit": MMDiT(**SMALL, depth=2, num_classes=3),
    "mmdit_modern": MMDiT(
        **SMALL,
        depth=2,
        block=partial(JointBlock, mlp=SwiGLU, qkv=partial(QKV, qk_norm=RMSNorm, rotate=rope_2d)),
    ),
    "uvit": UViT(**SMALL, depth=3, num_classes=3),
    "in_context": UViT(**SMALL, depth=3, num_classes=3, skip=no_skip),
    "mlp": ResidualMLP(width=16, depth=1, num_classes=3),
}
WITH_TEXT = ["cross", "mmdit", "mmdit_modern", "uvit", "in_context"]


def example(name, dtype=jnp.float32):
    """Inputs for one of the networks, with text of which the last token is padding."""
    x, t, cond = inputs(size=4, dtype=dtype)
    if name == "mlp":
        return x[:, 0, 0], t, cond
    cond = cond if NETWORKS[name].num_classes else {}
    text = jax.random.normal(jax.random.key(3), (3, 4, 5), dtype)
    return x, t, cond | {"tokens": text, "token_mask": jnp.ones((3, 4), bool).at[:, -1].set(False)}


@settings(max_examples=10, deadline=None)
@given(
    place=st.tuples(*[st.integers(-20, 20)] * 4),
    shift=st.tuples(*[st.integers(-20, 20)] * 2),
)
def test_rotated_products_depend_on_the_distance_alone(place, shift):
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))

    def logit(a, b):
        at = lambda cell: Cells(*(np.float32([c]) for c in cell))  # noqa: E731
        return jnp.vdot(rope_2d(q, at(a)), rope_2d(k, at(b)))

    a, b = np.array(place[:2]), np.array(place[2:])
    np.testing.assert_allclose(logit(a, b), logit(a + shift, b + shift), atol=2e-4)
    np.testing.assert_allclose(logit(a, a), jnp.vdot(q, k), atol=2e-4)


def test_rows_and_columns_turn_different_channels():
    x = jnp.ones((1, 6, 1, 8))
    turned = rope_2d(x, cells(2, 3))[0, :, 0].reshape(2, 3, 8)
    rows, columns = turned[..., :4], turned[..., 4:]
    np.testing.assert_array_equal(rows, rows[:, :1].repeat(3, axis=1))
    np.testing.assert_array_equal(columns, columns[:1].repeat(2, axis=0))
    assert float(jnp.abs(rows[0] - rows[1]).max()) > 0.5
    assert float(jnp.abs(columns[:, 0] - columns[:, 1]).max()) > 0.5
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), np.sqrt(8), rtol=1e-6)


def test_position_table_tells_cells_apart_by_shift():
    """The product of two rows of the table depends on their distance alone."""
    table = sincos_2d(cells(4, 5), 32)
    products = (table @ table.T).reshape(4, 5, 4, 5)
    np.testing.assert_allclose(products[1, 2, 2, 4], products[0, 1, 1, 3], rtol=1e-5)
    np.testing.assert_allclose(np.diagonal(table @ table.T), 16, rtol=1e-5)
    np.testing.assert_allclose(sincos_2d(cells(4, 4), 8, scale=2.0)[-1, 0], np.sin(1.5), rtol=1e-6)


def test_norms_of_known_numbers():
    x = jnp.array([[3.0, 4.0, 0.0, 0.0]])
    expected = np.array([[3.0, 4.0, 0, 0]]) / 2.5
    np.testing.assert_allclose(RMSNorm(affine=False).apply({}, x), expected, rtol=1e-5)
    y = LayerNorm().apply({}, 1000 + x)
    np.testing.assert_allclose(jnp.mean(y), 0, atol=1e-6)
    np.testing.assert_allclose(jnp.std(y), 1, rtol=1e-5)


def test_swiglu_has_the_parameters_of_an_mlp():
    x = jnp.zeros((1, 48))
    init = lambda m: jax.eval_shape(m.init, jax.random.key(0), x)["params"]  # noqa: E731
    plain = count(init(MLP())) - 5 * 48  # without biases
    assert count(init(SwiGLU())) == plain


def test_swiglu_is_bilinear_where_its_gate_is_open():
    """With a gate far in the positive, silu is the identity."""
    module = SwiGLU(ratio=3.0)
    x = jnp.array([[1.0, 2.0]])
    gate, value = 50 * jnp.ones((2, 4)), jnp.arange(8.0).reshape(2, 4)
    params = {"layer_in": {"kernel": jnp.concatenate([gate, value], 1)}}
    params["layer_out"] = {"kernel": jnp.ones((4, 2))}
    expected = 150 * jnp.sum(x @ value)
    np.testing.assert_allclose(module.apply({"params": params}, x)[0, 0], expected, rtol=1e-6)


def test_normed_queries_and_keys_ignore_the_size_of_the_input():
    module = QKV(heads=2, qk_norm=partial(RMSNorm, epsilon=0.0), bias=False)
    x = jax.random.normal(jax.random.key(0), (1, 3, 8))
    where = cells(1, 3)
    params = module.init(jax.random.key(1), x, where)
    (q, k, v), (q10, k10, v10) = (module.apply(params, a, where) for a in (x, 10 * x))
    close(q, q10)
    close(k, k10)
    close(10 * v, v10)


def quick(*names):
    """All networks, those that are not named marked exhaustive."""
    rest = [pytest.param(n, marks=pytest.mark.exhaustive) for n in NETWORKS if n not in names]
    return pytest.mark.parametrize("name", [*names, *rest])


@pytest.mark.exhaustive
@quick("uvit")
def test_scan_and_remat_change_no_value(name):
    """Two blocks at least in every scan."""
    module = NETWORKS[name].clone(depth=5 if "skip" in vars(NETWORKS[name]) else 3)
    check_forms(module, *example(name))


@pytest.mark.exhaustive
@quick("modern", "mmdit", "uvit")
def test_gradient(name, x64):
    module = NETWORKS[name].clone(dtype=jnp.float64)
    check_gradient(module, *example(name, jnp.float64))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NETWORKS)
def test_shape_of_the_output_and_samples_do_not_mix(name):
    module, (x, t, cond) = NETWORKS[name], example(name)
    params = randomised(module, x, t, cond)
    y = apply(module, params, x, t, cond)
    channels = x.shape[-1] * (2 if name in ("modern", "cross") else 1)
    assert y.shape == (*x.shape[:-1], channels)
    order = jnp.array([2, 0, 1])
    close(y[order], apply(module, params, *jax.tree.map(lambda a: a[order], (x, t, cond))))
    half = module.clone(dtype=jnp.bfloat16)
    rough = jax.eval_shape(lambda *a: half.apply({"params": a[0]}, *a[1:]), params, x, t, cond)
    assert rough.dtype == jnp.float32


@pytest.mark.parametrize("name", WITH_TEXT)
def test_text_matters_and_padding_does_not(name):
    module, (x, t, cond) = NETWORKS[name], example(name)
    params = randomised(module, x, t, cond)
    y = apply(module, params, x, t, cond)
    padding = cond | {"tokens": cond["tokens"].at[:, -1].set(100.0)}
    np.testing.assert_array_equal(y, apply(module, params, x, t, padding))
    other = cond | {"tokens": cond["tokens"].at[:, 0].set(0.0)}
    assert float(jnp.abs(y - apply(module, params, x, t, other)).max()) > 1e-3
    whole = {name: value for name, value in cond.items() if name != "token_mask"}
    seen = cond | {"token_mask": jnp.ones((3, 4), bool)}
    close(*(apply(module, params, x, t, c) for c in (whole, seen)))


@pytest.mark.parametrize("name", ["mmdit", "cross"])
def test_padding_is_as_if_it_were_not_there(name):
    module, (x, t, cond) = NETWORKS[name], example(name)
    params = randomised(module, x, t, cond)
    shorter = {"label": cond["label"], "tokens": cond["tokens"][:, :-1]}
    close(*(apply(module, params, x, t, c) for c in (cond, shorter)))


def test_rotated_attention_ignores_where_the_grid_lies():
    attend = SelfAttention(heads=2, qkv=partial(QKV, rotate=rope_2d))
    x = jax.random.normal(jax.random.key(0), (1, 6, 16))
    near = cells(2, 3)
    params = attend.init(jax.random.key(1), x, BlockContext(where=near))
    far = Cells(near.row + 7, near.column - 3)
    close(*(attend.apply(params, x, BlockContext(where=where)) for where in (near, far)), 1e-4)
    swapped = Cells(near.column, near.row)
    apart = [attend.apply(params, x, BlockContext(where=where)) for where in (near, swapped)]
    assert float(jnp.abs(apart[0] - apart[1]).max()) > 1e-3


def test_the_text_of_the_last_joint_block_ends_there():
    x, t, cond = example("mmdit")
    params = randomised(NETWORKS["mmdit"], x, t, cond)
    assert params["last"].keys() == {"image_in", "image_out", "text_in"}
    assert params["last"]["text_in"]["modulation"]["kernel"].shape == (16, 32)
    assert params["block_0"]["text_in"]["modulation"]["kernel"].shape == (16, 96)


def test_long_skips_reach_their_counterparts():
    """With every block silenced but the first, what it says arrives through the last skip."""
    module, (x, t, cond) = NETWORKS["uvit"], example("uvit")
    params = randomised(module, x, t, cond)
    last = params["out_block_0"]["skip"]["out"]["kernel"]
    through_skip = last.at[:16].set(0.0)  # what comes from before the last block
    params["out_block_0"]["skip"]["out"]["kernel"] = through_skip
    y = apply(module, params, x, t, cond)
    silent = params | {"middle": jax.tree.map(jnp.zeros_like, params["middle"])}
    np.testing.assert_array_equal(y, apply(module, silent, x, t, cond))
    silent = params | {"in_block_0": jax.tree.map(jnp.zeros_like, params["in_block_0"])}
    assert float(jnp.abs(y - apply(module, silent, x, t, cond)).max()) > 1e-3


@pytest.mark.exhaustive
def test_errors_say_what_is_wanted():
    x, t, cond = inputs(size=4)
    key = jax.random.key(0)
    for name in ("cross", "mmdit"):
        with pytest.raises(InputError, match="tokens"):
            NETWORKS[name].init(key, x, t, cond)
    with pytest.raises(InputError, match="odd"):
        UViT(**SMALL, depth=4).init(key, x, t, None)


def test_mlp_without_labels_starts_at_zero():
    module = ResidualMLP(width=16, depth=1)
    x, t = jnp.ones((3, 2)), jnp.zeros(3)
    params = module.init(jax.random.key(0), x, t)["params"]
    np.testing.assert_array_equal(apply(module, params, x, t, None), np.zeros((3, 2)))
