"""Samplers, one family a file, each a constructor that takes the schedule first."""

from diffjax.samplers.ancestral import ancestral
from diffjax.samplers.ddim import ddim
from diffjax.samplers.dpm_solver import dpmpp_2m
from diffjax.samplers.loop import encode, sample, sample_path, sample_truncated
from diffjax.samplers.runge_kutta import euler, heun

__all__ = [
    "ancestral",
    "ddim",
    "dpmpp_2m",
    "encode",
    "euler",
    "heun",
    "sample",
    "sample_path",
    "sample_truncated",
]
