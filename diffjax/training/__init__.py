"""Training state, the step, the loop and its logs."""

from diffjax.training.averages import Averages, ema, update_average, update_averages
from diffjax.training.loop import Diverged, fit, stop_on_signals
from diffjax.training.metrics import MetricsLog, no_log, open_log
from diffjax.training.rate import PeakRate, at_rate, with_rates, without_rates
from diffjax.training.state import (
    Gradient,
    TrainState,
    accumulate_gradients,
    init_state,
    loss_gradient,
    make_train_step,
    scan_microbatches,
)
from diffjax.training.waiting import Waited

__all__ = [
    "Averages",
    "Diverged",
    "Gradient",
    "MetricsLog",
    "PeakRate",
    "TrainState",
    "Waited",
    "accumulate_gradients",
    "at_rate",
    "ema",
    "fit",
    "init_state",
    "loss_gradient",
    "make_train_step",
    "no_log",
    "open_log",
    "scan_microbatches",
    "stop_on_signals",
    "update_average",
    "update_averages",
    "with_rates",
    "without_rates",
]
