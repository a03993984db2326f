"""The variational bound in bits per dimension."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from diffjax.diffusion import log_variance_small, q_sample, sample_keys, step_noise
from diffjax.losses import prior_term, vb_term
from diffjax.samplers.checks import check_grid
from diffjax.types import Array, Cond, Denoiser, Grid, PRNGKeyArray, Samples, Schedule


class Bound(NamedTuple):
    """The variational bound and its parts, in bits per dimension.

    Attributes:
      total: (B,) sum of all parts.
      prior: (B,) KL of the last step to the prior.
      terms: (n, B) the term of each interval of the grid; the last is the decoder's.
    """

    total: Array
    prior: Array
    terms: Array


def variational_bound(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    schedule: Schedule,
    x0: Samples,
    ts: Grid,
    cond: Cond = None,
    log_variance=log_variance_small,
) -> Bound:
    """The variational bound on -log2 p(x0) per dimension: Ho et al. 2020, Eq. 5.

    One draw of x_t per interval, one denoiser call each, in one `lax.scan`.

    Args:
      key: consumed whole.
      denoiser: (x_t, t, cond) -> Prediction.
      schedule: the noise schedule.
      x0: 8-bit data in [-1, 1].
      ts: n + 1 decreasing times from t_max to clean, e.g. `grids.trailing(schedule, T, T)`.
      cond: condition of each sample, or None.
      log_variance: reverse variance, one of `diffusion.log_variance_*`.

    Returns:
      A `Bound`.

    Raises:
      InputError: ts is not a decreasing grid of at least one step.
    """
    ts = jnp.asarray(ts)
    check_grid(ts)
    keys = sample_keys(key, x0.shape[0])

    def term(_, interval):
        step, t, s = interval
        x_t = q_sample(schedule, x0, t, step_noise(keys, step, 1, x0)[0])
        return None, vb_term(
            schedule, lambda x, t: denoiser(x, t, cond), log_variance, x0, x_t, t, s
        )

    _, terms = lax.scan(term, None, (jnp.arange(ts.shape[0] - 1), ts[:-1], ts[1:]))
    prior = prior_term(schedule, x0)
    return Bound(prior + jnp.sum(terms, axis=0), prior, terms)
