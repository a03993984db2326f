"""Likelihood in bits per dimension: the variational bound and the probability flow."""

from diffjax.likelihood.bound import Bound, variational_bound
from diffjax.likelihood.dequantization import (
    Dequantizer,
    no_dequantization,
    uniform_dequantization,
    variational_dequantization,
)
from diffjax.likelihood.evaluate import (
    BitsPerDim,
    Estimate,
    bound_bits_per_dim,
    evaluate_bits_per_dim,
    ode_bits_per_dim,
)
from diffjax.likelihood.ode import (
    Density,
    Probes,
    adaptive_log_density,
    exact,
    gaussian,
    heun_step,
    ode_log_density,
    rademacher,
    rk4_step,
)

__all__ = [
    "BitsPerDim",
    "Bound",
    "Density",
    "Dequantizer",
    "Estimate",
    "Probes",
    "adaptive_log_density",
    "bound_bits_per_dim",
    "evaluate_bits_per_dim",
    "exact",
    "gaussian",
    "heun_step",
    "no_dequantization",
    "ode_bits_per_dim",
    "ode_log_density",
    "rademacher",
    "rk4_step",
    "uniform_dequantization",
    "variational_bound",
    "variational_dequantization",
]
