"""Bits per dimension of a data set."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax.diffusion import log_variance_small
from diffjax.errors import InputError
from diffjax.likelihood.bound import variational_bound
from diffjax.likelihood.dequantization import Dequantizer, uniform_dequantization
from diffjax.likelihood.ode import Probes, Step, ode_log_density, rk4_step
from diffjax.losses import split_batch
from diffjax.types import Array, Cond, Denoiser, Grid, PRNGKeyArray, Schedule

Estimate = Callable[[PRNGKeyArray, Array, Cond], Array]
"""(key, 8-bit data in [-1, 1], cond) -> bits per dimension (B,)."""


class BitsPerDim(NamedTuple):
    """Bits per dimension over a data set.

    Attributes:
      mean: over the samples.
      standard_error: of the mean; nan for a single sample.
      count: number of samples.
    """

    mean: float
    standard_error: float
    count: int


def ode_bits_per_dim(
    denoiser: Denoiser,
    schedule: Schedule,
    ts: Grid,
    dequantize: Dequantizer = uniform_dequantization,
    probes: Probes | None = None,
    step: Step = rk4_step,
) -> Estimate:
    """(log q - log p(x)) / (D log 2) by the probability flow: Song et al. 2021, section 4.3.

    With dequantization its mean is an upper bound on -log2 P(x8) per dimension.

    Args:
      denoiser: (x_t, t, cond) -> Prediction.
      schedule: the noise schedule.
      ts: decreasing times that end noisy, as for `ode_log_density`.
      dequantize: `uniform_dequantization`, `variational_dequantization(model)`, or
        `no_dequantization` for real-valued data.
      probes: of the divergence, as for `ode_log_density`.
      step: `rk4_step` or `heun_step`.

    Returns:
      An `Estimate`.
    """

    def estimate(key, x8, cond=None):
        bin_key, probe_key = jax.random.split(key)
        x, log_q = dequantize(bin_key, x8)
        density = ode_log_density(probe_key, denoiser, schedule, x, ts, cond, probes, step)
        nats = log_q - density.log_density
        return nats / (int(np.prod(x8.shape[1:])) * np.log(2))

    return estimate


def bound_bits_per_dim(
    denoiser: Denoiser, schedule: Schedule, ts: Grid, log_variance=log_variance_small
) -> Estimate:
    """The total of `variational_bound`, for `evaluate_bits_per_dim`.

    Args:
      denoiser: (x_t, t, cond) -> Prediction.
      schedule: the noise schedule.
      ts: n + 1 decreasing times from t_max to clean.
      log_variance: reverse variance, one of `diffusion.log_variance_*`.

    Returns:
      An `Estimate`.
    """

    def estimate(key, x8, cond=None):
        return variational_bound(key, denoiser, schedule, x8, ts, cond, log_variance).total

    return estimate


def evaluate_bits_per_dim(
    key: PRNGKeyArray,
    estimate: Estimate,
    batches: Iterable[dict[str, Any]],
    progress: bool = True,
) -> BitsPerDim:
    """Mean and standard error of bits per dimension over a data set.

    The estimate is called once per batch, with the batch's number folded into the key. Jit it
    with params as arguments:

        @jax.jit
        def bits(params, key, x, cond):
            denoiser = make_denoiser(network, params, schedule, predict_eps)
            return ode_bits_per_dim(denoiser, schedule, ts)(key, x, cond)

        evaluate_bits_per_dim(key, partial(bits, params), batches)

    Args:
      key: consumed whole.
      estimate: (key, x, cond) -> (B,), e.g. `ode_bits_per_dim(...)`.
      batches: of {"x": (B, ...) in [-1, 1]} and the conditions beside it; finite.
      progress: whether to show a bar with the running mean.

    Returns:
      A `BitsPerDim`.

    Raises:
      InputError: there are no batches, or an estimate is not finite.
    """
    from tqdm import tqdm

    found, total, seen = [], 0.0, 0
    bar = tqdm(batches, desc="bits/dim", disable=not progress)
    for index, batch in enumerate(bar):
        x, cond = split_batch(batch)
        bits = np.asarray(estimate(jax.random.fold_in(key, index), x, cond), np.float64)
        if not np.all(np.isfinite(bits)):
            raise InputError(
                f"bits per dimension of batch {index} are not finite; check that its data are in "
                "[-1, 1] and that the grid ends above clean data."
            )
        found.append(bits)
        total, seen = total + bits.sum(), seen + len(bits)
        bar.set_postfix(mean=f"{total / seen:.4f}")
    if not found:
        raise InputError("there are no batches to evaluate; expected at least one.")
    bits = np.concatenate(found)
    error = bits.std(ddof=1) / np.sqrt(len(bits)) if len(bits) > 1 else float("nan")
    return BitsPerDim(float(bits.mean()), float(error), len(bits))
