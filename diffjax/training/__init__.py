"""Training state, the step, the loop and its logs."""

from diffjax.training.loop import Diverged, fit, stop_on_signals
from diffjax.training.metrics import MetricsLog, no_log, open_log
from diffjax.training.state import (
    Gradient,
    TrainState,
    in_turn,
    init_state,
    make_train_step,
    mean_over,
)

__all__ = [
    "Diverged",
    "Gradient",
    "MetricsLog",
    "TrainState",
    "fit",
    "in_turn",
    "init_state",
    "make_train_step",
    "mean_over",
    "no_log",
    "open_log",
    "stop_on_signals",
]
