"""Samplers, one family a file, each a constructor that takes the schedule first."""

from diffjax.samplers.amed import Amed, amed, amed_loss
from diffjax.samplers.ancestral import ancestral
from diffjax.samplers.ddim import ddim
from diffjax.samplers.deis import deis
from diffjax.samplers.dpm_solver import dpm_solver, dpmpp_2m, dpmpp_2s, dpmpp_multistep
from diffjax.samplers.loop import encode, sample, sample_path, sample_truncated
from diffjax.samplers.multistep import lms, plms
from diffjax.samplers.runge_kutta import dpm_2, euler, heun, midpoint, rk4
from diffjax.samplers.unipc import unipc

__all__ = [
    "Amed",
    "amed",
    "amed_loss",
    "ancestral",
    "ddim",
    "deis",
    "dpm_2",
    "dpm_solver",
    "dpmpp_2m",
    "dpmpp_2s",
    "dpmpp_multistep",
    "encode",
    "euler",
    "heun",
    "lms",
    "midpoint",
    "plms",
    "rk4",
    "sample",
    "sample_path",
    "sample_truncated",
    "unipc",
]
