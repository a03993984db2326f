"""Attention and norms: every derivative of the formula, under every transformation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import models
from diffjax.models import layers
from diffjax.models.flash import flash_attention, suits
from diffjax.models.softmax import softmax_attention
from diffjax.models.transformer import standardised


def plain(q, k, v):
    logits = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(logits), v)


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


MAPPED = ("value", "gradient", "along a direction", "gradient of both")
FORMULA = ("value", "gradient", "along a direction", "gradient along a direction")
ROWS = [(flash_attention, form, False) for form in FORMS]
ROWS += [(flash_attention, form, True) for form in MAPPED]
ROWS += [(softmax_attention, form, False) for form in FORMULA]


@pytest.mark.parametrize(("ours", "form", "mapped"), ROWS)
def test_every_derivative_is_that_of_the_formula(ours, form, mapped):
    with jax.enable_x64(True):
        of = FORMS[form]
        build = (lambda attend: second(of, attend)) if mapped else of
        both = jax.jit(lambda *given: (build(ours)(*given), build(plain)(*given)))
        for a, b in zip(*map(jax.tree.leaves, both(*problem())), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


def memory(attend, layers=8):
    """Sets of weights that fit into what a gradient of so many layers of attention takes."""
    deep = lambda x: functools.reduce(lambda x, _: attend(x, x, x), range(layers), x).sum()  # noqa: E731
    x = jax.random.normal(jax.random.key(0), (2, 128, 2, 8))
    program = jax.jit(jax.grad(deep)).lower(x).compile()
    return program.memory_analysis().temp_size_in_bytes / (4 * 2 * 2 * 128 * 128)


def test_the_backward_pass_keeps_one_set_of_weights_for_each_layer():
    assert memory(softmax_attention) < 8 + 3 < 15 < memory(jax.nn.dot_product_attention)


def test_the_norm_is_jaxs_with_its_derivatives():
    with jax.enable_x64(True):
        g = np.random.default_rng(0)
        x, dx = (jnp.asarray(3 + g.standard_normal((2, 3, 8))) for _ in range(2))
        ours = lambda x: jnp.sin(standardised(x, 0.1)).sum()  # noqa: E731
        formula = lambda x: jnp.sin(jax.nn.standardize(x, epsilon=0.1)).sum()  # noqa: E731
        for f in (jax.grad, jax.hessian, lambda f: lambda x: jax.jvp(f, (x,), (dx,))):
            a, b = jax.jit(lambda x, f=f: (f(ours)(x), f(formula)(x)))(x)
            np.testing.assert_allclose(a, b, atol=1e-10)


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


def test_what_has_no_kernel_on_a_gpu_is_said(monkeypatch, caplog):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # one without cuDNN
    q = jnp.zeros((1, 4, 2, 16), jnp.bfloat16)
    slope = jax.jit(lambda q: jax.jvp(lambda q: layers.attention(q, q, q), (q,), (q,)))
    slope.trace(q).lower(lowering_platforms=("cuda",))
    assert "without cuDNN's flash kernel" in caplog.text
    assert "the formula is used" in caplog.text


def test_a_network_of_16_bits_has_both_derivatives():
    size = {"width": 32, "depth": 2, "heads": 2}
    net = models.DiT(**size, dtype=jnp.bfloat16, scan_blocks=True, remat=True)
    x, t, cond = jnp.ones((2, 8, 8, 4)), jnp.full(2, 0.5), {"label": jnp.arange(2)}
    params = jax.jit(net.init)(jax.random.key(0), x, t, cond)["params"]
    g = np.random.default_rng(0)  # the last layer is zero at first
    params = jax.tree.map(lambda p: p + 0.1 * g.standard_normal(p.shape, np.float32), params)
    f = lambda x: net.apply({"params": params}, x, t, cond).sum()  # noqa: E731
    direction = jax.random.normal(jax.random.key(1), x.shape)
    along = lambda x: jax.jvp(f, (x,), (direction,))[1]  # noqa: E731
    slope, gradient = jax.jit(lambda x: (along(x), jax.grad(f)(x)))(x)
    assert jnp.abs(gradient).max() > 0
    np.testing.assert_allclose(slope, jnp.vdot(gradient, direction), rtol=0.05, atol=0.02)
