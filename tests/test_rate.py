"""A peak learning rate is a number in the state: one compiled step serves all rates."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import parallel, recipe
from diffjax.run import config
from diffjax.run.state import compiled_step, initial_state
from diffjax.training import at_rate, init_state, make_train_step, with_rates, without_rates


def quadratic(params, key, batch):
    """A loss."""
    del key
    return jnp.sum((params["w"] - batch) ** 2), {}


def after(optimizer, steps=6):
    """The parameters after a few steps."""
    state = init_state({"w": jnp.arange(3.0)}, optimizer)
    step = jax.jit(make_train_step(quadratic, optimizer))
    for _ in range(steps):
        state, _ = step(state, jax.random.key(0), jnp.float32(0.5))
    return state.params["w"]


def test_a_peak_rate_is_optax_s_learning_rate():
    shape = optax.cosine_decay_schedule(1.0, 10)
    ours = after(at_rate(optax.adamw(shape, weight_decay=0.1), 0.03))
    theirs = after(optax.adamw(lambda n: 0.03 * shape(n), weight_decay=0.1))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert jnp.max(jnp.abs(ours - jnp.arange(3.0))) > 0.01


@pytest.mark.parametrize("make", [recipe.cosine_adam, recipe.warmup_adam])
def test_what_is_logged_is_the_rate_of_the_step(make):
    """The first update of Adam is the rate times the gradient's sign."""
    given = make(steps=10, warmup=4, lr=0.02, clip_norm=1.0)
    state = init_state({"w": jnp.ones(2)}, given.optimizer)
    step = jax.jit(make_train_step(quadratic, given.optimizer))
    moved = []
    for _ in range(3):
        new, _ = step(state, jax.random.key(0), jnp.float32(0.0))
        moved.append(float(jnp.max(jnp.abs(new.params["w"] - state.params["w"]))))
        state = new
    np.testing.assert_allclose(moved, [given.learning_rate(n) for n in range(3)], rtol=2e-2)


def test_the_compiled_step_is_that_of_another_rate():
    get_config = config.load("configs/digits.py")

    def program(lr):
        experiment = config.build(get_config, {"channels": 8, "lr": lr})
        mesh = parallel.make_mesh()
        state = jax.eval_shape(lambda k: initial_state(experiment, k), jax.random.key(0))
        step, _ = compiled_step(experiment, parallel.jit_train_step, state, mesh, {})
        batch = {
            "x": jax.ShapeDtypeStruct((64, 8, 8, 1), "float32"),
            "label": jax.ShapeDtypeStruct((64,), "int32"),
        }
        return step.lower(state, jax.random.key(0), batch, {}).as_text()

    first = program(1e-3)
    assert "stablehlo" in first
    assert first == program(3e-3)


def test_a_restored_state_takes_the_rate_of_the_config_and_nothing_else():
    optimizer = lambda lr: optax.chain(at_rate(optax.adam(1.0), lr), optax.scale(0.5))  # noqa: E731
    old = init_state({"w": jnp.arange(3.0)}, optimizer(0.1))
    step = jax.jit(make_train_step(quadratic, optimizer(0.1)))
    old, _ = step(old, jax.random.key(0), jnp.float32(0.5))
    changed = with_rates(old, optimizer(0.7))
    by_size = lambda state: [x for x in jax.tree.leaves(state) if jnp.ndim(x) > 0]  # noqa: E731
    chex.assert_trees_all_equal(by_size(changed), by_size(old))
    moved = [step(s, jax.random.key(0), jnp.float32(0.5))[0].params["w"] for s in (old, changed)]
    was, now = (m - old.params["w"] for m in moved)
    np.testing.assert_allclose(now, 7 * was, rtol=1e-5)


def test_the_compiled_initial_state_is_that_of_another_rate():
    several = lambda lr: optax.multi_transform(  # noqa: E731
        {"a": at_rate(optax.adam(1.0), lr), "b": at_rate(optax.sgd(1.0), 2 * lr)},
        {"a": "a", "b": "b"},
    )
    start = lambda lr: lambda: init_state({"a": jnp.ones(2), "b": jnp.ones(3)}, several(lr))  # noqa: E731
    made = [jax.jit(lambda lr=lr: without_rates(start(lr)())) for lr in (0.1, 0.2)]
    first, second = (f.lower().as_text() for f in made)
    assert first == second
    for lr, make in zip((0.1, 0.2), made, strict=True):
        chex.assert_trees_all_equal(with_rates(make(), several(lr)), start(lr)())
