"""Attention as a primitive has every derivative of the formula, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import models
from diffjax.models import layers
from diffjax.models.flash import flash_attention, suits

plain = jax.nn.dot_product_attention


def problem(dtype=jnp.float64):
    g = np.random.default_rng(0)
    return [jnp.asarray(g.standard_normal((2, 5, 3, 4)), dtype) for _ in range(6)]


def loss(attend):
    return lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v)))


def along(attend):
    """(o, do) along tangents, given after q, k, v."""
    return lambda *given: jax.jvp(attend, given[:3], given[3:])


def of_both(attend):
    """A loss of o and of its derivative."""
    return lambda *given: sum(jnp.sum(jnp.sin(z)) for z in along(attend)(*given))


def scanned(attend):
    """Attention of attention of attention, each computed again for the gradient."""
    turn = jax.checkpoint(lambda x, _: (attend(x, x, x), None))
    return lambda q, *_: jax.lax.scan(turn, q, None, length=3)[0]


def second(f, attend):
    """f over a second axis of examples, as `vmap` has it, the keys shared by both."""
    axes = (0, None, 0, 0, 0, 0)
    double = lambda z, axis: z if axis is None else jnp.stack([z, 2 * z])  # noqa: E731
    return lambda *given: jax.vmap(f(attend), axes)(*map(double, given, axes))


FORMS = {
    "value": lambda attend: lambda *given: attend(*given[:3]),
    "gradient": lambda attend: lambda *given: jax.grad(loss(attend), (0, 1, 2))(*given[:3]),
    "gradient of queries": lambda attend: lambda *given: jax.grad(loss(attend))(*given[:3]),
    "along a direction": along,
    "along the queries": lambda attend: (
        lambda q, k, v, dq, *_: jax.jvp(lambda q: attend(q, k, v), (q,), (dq,))
    ),
    "gradient of both": lambda attend: lambda *given: jax.grad(of_both(attend), (0, 1, 2))(*given),
    "gradient along a direction": lambda attend: (
        lambda *given: jax.jvp(jax.grad(loss(attend), (0, 1, 2)), given[:3], given[3:])
    ),
    "linearised": lambda attend: lambda *given: jax.linearize(attend, *given[:3])[1](*given[3:]),
    "twice": lambda attend: (
        lambda *given: jax.grad(lambda *a: jnp.sum(jnp.cos(jax.grad(loss(attend))(*a))), (0, 1, 2))(
            *given[:3]
        )
    ),
    "rematerialised": lambda attend: (
        lambda *given: jax.grad(loss(jax.checkpoint(attend)))(*given[:3])
    ),
    "scanned": lambda attend: (
        lambda *given: jax.grad(lambda q: jnp.sum(jnp.sin(scanned(attend)(q))))(given[0])
    ),
    "scanned, along": lambda attend: lambda *given: jax.jvp(scanned(attend), given[:1], given[3:4]),
}


@pytest.mark.parametrize("mapped", [False, True], ids=["alone", "mapped"])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_formula(form, mapped):
    with jax.enable_x64(True):
        given = problem()
        of = FORMS[form]
        build = (lambda attend: second(of, attend)) if mapped else of
        ours, formula = jax.jit(build(flash_attention))(*given), build(plain)(*given)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(formula), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)  # the formula's softmax is float32


def test_only_what_cudnn_takes():
    half = [jnp.zeros((1, 4, 2, 72), jnp.bfloat16)] * 3
    assert suits(*half)
    assert not suits(*(z.astype(jnp.float32) for z in half))
    assert not suits(*(z[..., :71] for z in half))
    assert not suits(half[0], half[1], half[2].astype(jnp.float32))


def test_one_program_for_a_gpu_and_a_cpu():
    q, k, v = problem(jnp.bfloat16)[:3]
    q, k, v = (jnp.tile(z, (1, 1, 1, 2)) for z in (q, k, v))
    function = jax.jit(lambda *a: jax.grad(lambda *b: loss(layers.attention)(*b).astype(float))(*a))
    exported = jax.export.export(function, platforms=("cpu", "cuda"))(q, k, v)
    assert jnp.array_equal(exported.call(q, k, v), function(q, k, v))


def test_a_network_of_16_bits_has_both_derivatives():
    size = {"width": 32, "depth": 2, "heads": 2}
    net = models.DiT(**size, dtype=jnp.bfloat16, scan_blocks=True, remat=True)
    x, t, cond = jnp.ones((2, 8, 8, 4)), jnp.full(2, 0.5), {"label": jnp.arange(2)}
    params = jax.jit(net.init)(jax.random.key(0), x, t, cond)["params"]
    keys = iter(jax.random.split(jax.random.key(2), 99))  # the last layer is zero at first
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)
    f = jax.jit(lambda x: net.apply({"params": params}, x, t, cond))
    direction = jax.random.normal(jax.random.key(1), x.shape)
    slope = jax.jit(lambda x: jax.jvp(f, (x,), (direction,))[1].sum())(x)
    gradient = jax.jit(jax.grad(lambda x: f(x).sum()))(x)
    assert jnp.abs(gradient).max() > 0
    np.testing.assert_allclose(slope, jnp.vdot(gradient, direction), rtol=0.05, atol=0.02)
