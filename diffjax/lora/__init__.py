"""LoRA: a small tree of parameters that changes a frozen network; a method a function."""

from diffjax.lora.gradient import aligned, aligned_lora, since
from diffjax.lora.low_rank import (
    attention,
    check_fits,
    dense,
    dense_and_conv,
    init,
    layers,
    merge,
)
from diffjax.lora.methods import Method, dora, lora, lora_ga, rslora
from diffjax.lora.rates import lora_plus
from diffjax.lora.unmerged import unmerged

__all__ = [
    "Method",
    "aligned",
    "aligned_lora",
    "attention",
    "check_fits",
    "dense",
    "dense_and_conv",
    "dora",
    "init",
    "layers",
    "lora",
    "lora_ga",
    "lora_plus",
    "merge",
    "rslora",
    "since",
    "unmerged",
]
