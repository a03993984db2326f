"""Samplers, one family a file, each a constructor that takes the schedule first."""

from diffjax.samplers.adaptive import adaptive_sde
from diffjax.samplers.adaptive_ode import adaptive_ode
from diffjax.samplers.amed import Amed, amed, amed_loss
from diffjax.samplers.ancestral import ancestral
from diffjax.samplers.brownian import along_brownian, brownian, brownian_increment, sample_brownian
from diffjax.samplers.churn import edm_stochastic
from diffjax.samplers.ddim import ddim
from diffjax.samplers.decoupled import decoupled
from diffjax.samplers.deis import deis
from diffjax.samplers.dpm_sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from diffjax.samplers.dpm_solver import dpm_solver, dpmpp_2m, dpmpp_2s, dpmpp_multistep
from diffjax.samplers.euler_ancestral import dpmpp_2s_ancestral, euler_ancestral
from diffjax.samplers.interpolation import interpolate, interpolate_samples
from diffjax.samplers.langevin import langevin, predictor_corrector
from diffjax.samplers.learned_grid import (
    backpropagated,
    learn_decoupled_grid,
    learn_grid,
    smoothed,
)
from diffjax.samplers.loop import count_calls, encode, sample, sample_path, sample_truncated
from diffjax.samplers.multistep import lms, plms
from diffjax.samplers.restart import RestartInterval, restart
from diffjax.samplers.runge_kutta import dpm_2, euler, heun, midpoint, rk4
from diffjax.samplers.sa_solver import sa_solver
from diffjax.samplers.sde import euler_maruyama, reverse_diffusion
from diffjax.samplers.unipc import unipc

__all__ = [
    "Amed",
    "RestartInterval",
    "adaptive_ode",
    "adaptive_sde",
    "along_brownian",
    "amed",
    "amed_loss",
    "ancestral",
    "backpropagated",
    "brownian",
    "brownian_increment",
    "count_calls",
    "ddim",
    "decoupled",
    "deis",
    "dpm_2",
    "dpm_solver",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_2s_ancestral",
    "dpmpp_3m_sde",
    "dpmpp_multistep",
    "dpmpp_sde",
    "edm_stochastic",
    "encode",
    "euler",
    "euler_ancestral",
    "euler_maruyama",
    "heun",
    "interpolate",
    "interpolate_samples",
    "langevin",
    "learn_decoupled_grid",
    "learn_grid",
    "lms",
    "midpoint",
    "plms",
    "predictor_corrector",
    "restart",
    "reverse_diffusion",
    "rk4",
    "sa_solver",
    "sample",
    "sample_brownian",
    "sample_path",
    "sample_truncated",
    "smoothed",
    "unipc",
]
