"""What a training step needs on a TPU slice, from the TPU's own compiler and without a TPU."""

from diffjax.plan.chips import CHIPS, Chip, chip_of
from diffjax.plan.flops import matmul_flops
from diffjax.plan.hlo import Collective, collectives, hbm_bytes
from diffjax.plan.report import report, times
from diffjax.plan.step import Cost, cost, cost_of, devices_of

__all__ = [
    "CHIPS",
    "Chip",
    "Collective",
    "Cost",
    "chip_of",
    "collectives",
    "cost",
    "cost_of",
    "devices_of",
    "hbm_bytes",
    "matmul_flops",
    "report",
    "times",
]
