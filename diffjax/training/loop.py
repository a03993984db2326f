"""The training loop: dispatch steps, tell the callbacks, stop when asked or when hopeless."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from diffjax.training.state import NOTHING, TrainState
from diffjax.types import Array, PRNGKeyArray, PyTree

Metrics = dict[str, Array]
Callback = Callable[[int, TrainState, Metrics], None]
MAX_SKIPPED_IN_ROW = 10


class Diverged(RuntimeError):
    """Too many steps in a row had a loss or gradient that was not finite."""


def fit(
    train_step: Callable[..., tuple[TrainState, Metrics]],
    state: TrainState,
    key: PRNGKeyArray,
    batches: Iterator[PyTree],
    steps: int,
    callbacks: Sequence[Callback] = (),
    stop: Callable[[], bool] = lambda: False,
    frozen: Mapping[str, PyTree] = NOTHING,
) -> TrainState:
    """Train from the state's step up to `steps`.

    Nothing here waits for a step that was just dispatched: the check for divergence looks
    at the metrics of the step before.

    Args:
      train_step: from `make_train_step`, jitted with the state donated (`parallel.jit_step`).
      state: where to begin; consumed.
      key: the run's root key.
      batches: batch i of the run at the i-th call, from the state's step on.
      steps: the last step.
      callbacks: each called as (step, state, metrics) after every step, in order; reading
        a metric waits for its step.
      stop: asked before each step; True ends training early.
      frozen: name -> parameters that the step reads and never trains.

    Returns:
      The state reached.

    Raises:
      Diverged: ten steps in a row were skipped.
    """
    before = None
    for step in range(int(state.step), steps):
        if stop():
            break
        state, metrics = train_step(state, key, next(batches), dict(frozen))
        if before is not None:
            _check(step, before)
        before = metrics["skipped"]
        for callback in callbacks:
            callback(step + 1, state, metrics)
    if before is not None:
        _check(int(state.step), before)
    return state


def _check(step: int, skipped: Array) -> None:
    in_row = int(skipped[1])
    if in_row >= MAX_SKIPPED_IN_ROW:
        raise Diverged(
            f"the loss or its gradient was not finite for {in_row} steps in a row, "
            f"up to step {step}"
        )


@contextmanager
def stop_on_signals():
    """A function that says whether SIGINT or SIGTERM has come.

    A second SIGINT does what it would have done without this, such as interrupt.

    Yields:
      () -> bool, for `fit`.
    """
    received = []

    def note(number, frame):
        if received and number == signal.SIGINT and callable(before[number]):
            before[number](number, frame)
        received.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
