"""The pure training step, against problems whose exact trajectory is known."""

import os
import signal
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import training


def quadratic(params, key, batch):
    """Mean of |w - x|^2 / 2: the gradient is w minus the batch's mean."""
    return jnp.mean((params["w"] - batch["x"]) ** 2) / 2, {}


def run(step, state, batches, key=None):
    key = jax.random.key(0) if key is None else key
    step, metrics = jax.jit(step), []
    for batch in batches:
        state, m = step(state, key, batch)
        metrics.append(m)
    return state, metrics


def start(optimizer, w=4.0, context=None):
    return training.init_state({"w": jnp.array(w)}, optimizer, context)


def test_sgd_follows_its_closed_form():
    optimizer = optax.sgd(0.25)
    step = training.make_train_step(quadratic, optimizer, {"ema": training.ema(0.0)})
    state, metrics = run(step, start(optimizer), [{"x": jnp.ones((8,))}] * 10)
    np.testing.assert_allclose(state.params["w"], 1 + 3 * 0.75**10, rtol=1e-6)
    np.testing.assert_allclose(
        [m["grad_norm"] for m in metrics], 3 * 0.75 ** np.arange(10), rtol=1e-5
    )
    assert int(state.step) == 10


@pytest.mark.parametrize("pieces", [2, 4, 8])
def test_accumulated_gradients_are_those_of_the_whole_batch(pieces):
    optimizer = optax.sgd(0.3)
    batches = [{"x": jax.random.normal(jax.random.key(i), (8,))} for i in range(5)]
    whole, _ = run(training.make_train_step(quadratic, optimizer), start(optimizer), batches)
    step = training.make_train_step(quadratic, optimizer, accumulate=pieces)
    parts, metrics = run(step, start(optimizer), batches)
    np.testing.assert_allclose(parts.params["w"], whole.params["w"], rtol=1e-6)
    assert metrics[0]["loss"].shape == ()


def test_ema_with_constant_decay_is_the_geometric_average():
    optimizer = optax.sgd(0.25)
    step = training.make_train_step(quadratic, optimizer, {"ema": training.ema(0.5)})
    state, _ = run(step, start(optimizer), [{"x": jnp.ones((2,))}] * 400)
    np.testing.assert_allclose(state.ema_params["w"], 1.0, atol=1e-6)
    decays = training.ema(0.9999)(jnp.array([0, 89, 10**6]))
    np.testing.assert_allclose(decays, [0.1, 90 / 99, 0.9999], rtol=1e-6)


def test_ema_forgets_its_start_early():
    optimizer = optax.sgd(1.0)  # arrives at the target in one step
    step = training.make_train_step(quadratic, optimizer, {"ema": training.ema(0.9999)})
    state, _ = run(step, start(optimizer), [{"x": jnp.ones((2,))}] * 30)
    assert abs(float(state.ema_params["w"]) - 1) < 1e-3  # without warm-up: 3 * 0.9999^30 away


def test_a_step_that_is_not_finite_changes_nothing_but_the_count():
    def loss(params, key, batch, seen):
        value, _ = quadratic(params, key, batch)
        return value, {"context": {"seen": seen + 1}}

    optimizer = optax.adam(0.1)
    step = training.make_train_step(loss, optimizer)
    good, bad = {"x": np.ones(4, np.float32)}, {"x": np.full(4, np.nan, np.float32)}
    with jax.debug_nans(False):
        key = jax.random.key(1)
        first = start(optimizer, context={"seen": jnp.zeros((), int)})
        mixed, metrics = run(step, first, [good, bad, bad, good, bad], key)
        clean, _ = run(step, first, [good, good], key)
    assert [m["skipped"].tolist() for m in metrics] == [[0, 0], [1, 1], [2, 2], [2, 0], [3, 1]]
    assert int(mixed.step) == 5
    assert int(mixed.context["seen"]) == 2
    for name in ("params", "opt_state"):
        chex.assert_trees_all_equal(getattr(mixed, name), getattr(clean, name))


def test_the_key_is_a_function_of_the_step():
    def noisy(params, key, batch):
        return jnp.mean(params["w"] * jax.random.normal(key)), {}

    optimizer = optax.sgd(0.1)
    step = training.make_train_step(noisy, optimizer)
    batches = [{"x": jnp.ones((2,))}] * 6
    whole, _ = run(step, start(optimizer), batches)
    half, _ = run(step, start(optimizer), batches[:3])
    resumed, _ = run(step, half, batches[3:])
    np.testing.assert_array_equal(whole.params["w"], resumed.params["w"])
    other, _ = run(step, start(optimizer), batches, jax.random.key(1))
    assert float(other.params["w"]) != float(whole.params["w"])


def test_fit_stops_when_asked_and_calls_back_in_order():
    optimizer = optax.sgd(0.25)
    step = training.make_train_step(quadratic, optimizer)
    calls = []
    batches = iter([{"x": jnp.ones((2,))}] * 100)
    state = training.fit(
        step,
        start(optimizer),
        jax.random.key(0),
        batches,
        steps=50,
        callbacks=[lambda i, s, m: calls.append((i, int(s.step)))],
        stop=lambda: len(calls) == 7,
    )
    assert int(state.step) == 7
    assert calls == [(i, i) for i in range(1, 8)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_the_step_it_came_in(number):
    optimizer = optax.sgd(0.25)
    step = training.make_train_step(quadratic, optimizer)
    strike = lambda i, state, metrics: os.kill(os.getpid(), number) if i == 5 else None  # noqa: E731
    batches = iter([{"x": jnp.ones((2,))}] * 100)
    before = signal.getsignal(number)
    with training.stop_on_signals() as stop:
        state = training.fit(
            step, start(optimizer), jax.random.key(0), batches, 50, callbacks=[strike], stop=stop
        )
    assert int(state.step) == 5
    assert signal.getsignal(number) == before


@pytest.mark.exhaustive
def test_bfloat16_compute_keeps_parameters_and_loss_in_float32():
    from configs.digits import get_config

    config = get_config(channels=8, multipliers=(1,), dtype="bfloat16", batch_size=8)
    params = config.model.init(jax.random.key(0))
    batch = {"x": jnp.zeros((8, 8, 8, 1)), "label": jnp.arange(8)}
    loss = lambda params, key: config.loss({})(params, key, batch)[0]  # noqa: E731
    value, grads = jax.jit(jax.value_and_grad(loss))(params, jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, grads, value))} == {
        jnp.dtype("float32")
    }
    exact = get_config(channels=8, multipliers=(1,), batch_size=8)
    reference = jax.jit(lambda p, k: exact.loss({})(p, k, batch)[0])(params, jax.random.key(1))
    assert 0 < abs(float(value - reference)) < 0.02 * float(reference) or value == reference
    text = jax.jit(loss).lower(params, jax.random.key(1)).as_text()
    assert "bf16" in text


def test_pieces_average_counts_and_flags_too():
    """Of four pieces one has a flag, and they count 0 to 3: a quarter, and 1.5."""

    def gradient(params, key, piece, context):
        return params * 0.0, {"flag": piece == 3, "count": piece}, params, context

    keys, pieces = jax.random.split(jax.random.key(0), 4), jnp.arange(4)
    _, aux, grads, _ = training.scan_microbatches(gradient, jnp.float32(2), keys, pieces, {})
    assert (float(aux["flag"]), float(aux["count"]), float(grads)) == (0.25, 1.5, 2.0)


def test_the_share_of_time_that_batches_are_waited_for(monkeypatch):
    """Batches that take 1 and 3 seconds, each used for 4."""
    clock = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def slow():
        for seconds in (1, 3):
            clock[0] += seconds
            yield seconds

    batches, shares = training.Waited(slow()), []
    for _ in batches:
        clock[0] += 4
        shares.append(batches.share())
    assert shares == [1 / 5, 3 / 7]
    assert batches.whole() == 4 / 12
