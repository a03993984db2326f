"""Training state, the step, the loop and its logs."""

from diffjax.training.loop import Diverged, fit, stop_on_signals
from diffjax.training.metrics import MetricsLog, open_log
from diffjax.training.state import TrainState, init_state, make_train_step

__all__ = [
    "Diverged",
    "MetricsLog",
    "TrainState",
    "fit",
    "init_state",
    "make_train_step",
    "open_log",
    "stop_on_signals",
]
