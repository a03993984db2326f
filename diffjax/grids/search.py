"""Grids searched for one denoiser, among the times of a fine solution."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffjax.diffusion import eps_from_x0, q_sample
from diffjax.errors import InputError
from diffjax.grids.noise import karras
from diffjax.grids.steps import check_steps
from diffjax.types import Array, Cond, Denoiser, Grid, Samples, Schedule


def gits(
    schedule: Schedule,
    n: int,
    denoiser: Denoiser,
    x: Samples,
    fine: Grid | None = None,
    cond: Cond = None,
) -> Array:
    """The n steps among those of a fine grid whose Euler steps err least: Chen et al. 2024 (GITS).

    The cost of a step from fine time i to j is the mean distance, in y = x/alpha, of one
    Euler step along the fine trajectory's own slope at i to the trajectory at j (their
    Eq. 11); dynamic programming finds the cheapest chain of n.

    Args:
      schedule: the noise schedule.
      n: number of steps, at least 1.
      denoiser: (x_t, t, cond) -> Prediction.
      x: noise at the first time of the fine grid; the paper takes 256 samples.
      fine: decreasing times to choose from, the last clean; default `karras` of 60 steps.
      cond: condition of each sample, or None.

    Returns:
      n + 1 decreasing times of the fine grid, its first and its last among them.

    Raises:
      InputError: no steps, or more than the fine grid has.
    """
    ts = karras(schedule, 60) if fine is None else jnp.asarray(fine)
    check_steps(n)
    if n > ts.shape[0] - 1:
        raise InputError(f"a fine grid of {ts.shape[0] - 1} steps cannot give {n}.")
    costs = euler_costs(schedule, denoiser, x, ts, cond)
    return ts[cheapest_chain(np.asarray(costs), n)]


def euler_costs(
    schedule: Schedule, denoiser: Denoiser, x: Samples, ts: Grid, cond: Cond = None
) -> Array:
    """Mean distance of one Euler step from time i to the fine Euler trajectory at time j.

    Args:
      schedule: the noise schedule.
      denoiser: (x_t, t, cond) -> Prediction.
      x: noise at ts[0].
      ts: N + 1 decreasing times.
      cond: condition of each sample, or None.

    Returns:
      (N, N + 1) distances in y = x/alpha, row i from time i; only j > i means anything.
    """

    def step(x, interval):
        t, s = interval
        x0 = denoiser(x, t, cond).x0
        eps = eps_from_x0(schedule, x, t, x0)
        x = q_sample(schedule, x0, s, eps)
        return x, (x0, eps, x)

    _, (x0s, slopes, path) = lax.scan(step, x, (ts[:-1], ts[1:]))

    def row(x0, eps):
        def distance(x_s, s):
            gap = (q_sample(schedule, x0, s, eps) - x_s) / schedule.alpha(s)
            return jnp.mean(jnp.sqrt(jnp.sum(gap.reshape(gap.shape[0], -1) ** 2, axis=1)))

        return jax.vmap(distance)(path, ts[1:])

    costs = lax.map(lambda pair: row(*pair), (x0s, slopes))
    return jnp.concatenate([jnp.zeros_like(costs[:, :1]), costs], axis=1)


def cheapest_chain(costs: np.ndarray, n: int) -> np.ndarray:
    """Indices 0 = i_0 < ... < i_n = N of the least sum of costs[i_k, i_{k+1}].

    Args:
      costs: (N, N + 1), of a step from i to j > i.
      n: number of steps, at most N.

    Returns:
      n + 1 increasing indices.
    """
    N = costs.shape[0]
    allowed = np.where(np.arange(N + 1)[None] > np.arange(N)[:, None], costs, np.inf)
    best = np.full(N + 1, np.inf)  # of reaching each time in the steps so far
    best[0] = 0
    before = []
    for _ in range(n):
        total = best[:N, None] + allowed
        before.append(np.argmin(total, axis=0))
        best = np.min(total, axis=0)
    chain = [N]
    for choice in reversed(before):
        chain.append(choice[chain[-1]])
    return np.asarray(chain[::-1])
