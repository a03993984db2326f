"""Tiny networks away from their initialisation, where every input and parameter matters."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from diffjax.models import network
from diffjax.models.stacking import stack_blocks, unstack_blocks


def inputs(batch=3, size=8, channels=2, classes=3, dtype=np.float32):
    """Images, times in steps and labels."""
    g = np.random.default_rng(0)
    x = jnp.asarray(g.standard_normal((batch, size, size, channels)), dtype)
    t = jnp.linspace(1, 999, batch, dtype=dtype)
    return x, t, {"label": jnp.arange(batch) % (classes + 1)}


def randomised(module, x, t, cond, seed=0, scale=0.3):
    """Parameters of the module's shapes, all random."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, t, cond)["params"]
    g = np.random.default_rng(seed)
    draw = lambda s: jnp.asarray(scale * g.standard_normal(s.shape), x.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes)


@functools.cache
def compiled(module):
    """The network as one compiled function."""
    return jax.jit(network(module))


def apply(module, params, x, t, cond):
    """The network's output when sampling."""
    return compiled(module)(params, x, t, cond, None)


def loss_and_gradient(module):
    """(params, x, t, cond) -> the mean square of the output with its gradient, compiled."""
    net = network(module)
    return jax.jit(
        jax.value_and_grad(lambda params, *given: jnp.mean(net(params, *given, None) ** 2))
    )


def check_gradient(module, x, t, cond):
    """The gradient along a random direction is the central difference, in float64."""
    params = randomised(module, x, t, cond)
    direction = randomised(module, x, t, cond, seed=1)
    both = loss_and_gradient(module)
    step = 1e-3  # attention's softmax is float32
    moved = lambda s: jax.tree.map(lambda p, d: p + s * d, params, direction)  # noqa: E731
    (high, _), (low, _) = (both(moved(s), x, t, cond) for s in (step, -step))
    _, gradient = both(params, x, t, cond)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(gradient))
    products = jax.tree.map(jnp.vdot, gradient, direction)
    slope = (high - low) / (2 * step)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-3)


def check_forms(module, x, t, cond, remat=True):
    """Blocks in a scan, recomputed or not, give the output and gradient of those written out."""
    params = randomised(module, x, t, cond)
    value, gradient = loss_and_gradient(module)(params, x, t, cond)
    form = module.clone(remat=remat, scan_blocks=True)
    shapes = jax.eval_shape(form.init, jax.random.key(0), x, t, cond)["params"]
    stacked = stack_blocks(params, shapes)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, shapes)
    assert len(stacked) < len(params)
    other, slope = loss_and_gradient(form)(stacked, x, t, cond)
    np.testing.assert_allclose(value, other, rtol=1e-5)
    jax.tree.map(close, stack_blocks(gradient, shapes), slope)
    chex.assert_trees_all_equal(params, unstack_blocks(stacked))


def close(a, b, tolerance=1e-5):
    """Within the tolerance of the largest number."""
    bound = tolerance * float(jnp.abs(a).max()) + 1e-30
    np.testing.assert_allclose(a, b, rtol=0, atol=bound)
