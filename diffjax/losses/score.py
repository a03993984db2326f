"""Losses of the score itself: denoising and sliced score matching."""

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample, score_from_x0
from diffjax.losses.denoising import per_sample_mean, split_batch
from diffjax.parameterization import check_trainable, make_denoiser
from diffjax.types import (
    Array,
    LossFn,
    Network,
    Parameterization,
    Schedule,
    Time,
    TimeDensity,
)


def noise_variance(schedule: Schedule, t: Time) -> Array:
    """sigma(t)^2, the weight of Song & Ermon 2019, Eq. 6: the squared error of eps.

    `diffusion.diffusion_squared` has the same form and is the likelihood weighting of
    Song et al. 2021 (Maximum likelihood training), Theorem 1.
    """
    return schedule.sigma(jnp.asarray(t)) ** 2


def denoising_score_matching(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    weight=noise_variance,
) -> LossFn:
    """E of w(t) |s(x_t, t) + eps/sigma|^2, averaged over elements: Vincent 2011, Eq. 9.

    It differs from the squared error of the true score by a constant, and so is least
    for the score of p_t (Song et al. 2021, Eq. 7, with w their lambda).

    Args:
      network: (params, x, c_noise, cond, key) -> raw output.
      schedule: the noise schedule.
      parameterization: what the network predicts, `predict_score` or any other.
      density: how times are drawn.
      weight: (schedule, t) -> w (B,).

    Returns:
      A `LossFn`; a density with a state needs `density_state=density.init()` in the context.
    """

    def terms(score, x_t, t, eps, key):
        sigma = schedule.sigma(t).reshape(-1, *(1,) * (x_t.ndim - 1))
        return per_sample_mean((score(x_t) + eps / sigma) ** 2)

    return _score_loss(network, schedule, parameterization, density, weight, terms)


def sliced_score_matching(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    weight=noise_variance,
    projections: int = 1,
    projection=jax.random.rademacher,
    variance_reduced: bool = True,
) -> LossFn:
    """E of w(t) (v . J v + |s|^2 / 2), over elements: Song et al. 2019 (sliced), Eq. 7-8.

    J = ds/dx_t by one forward derivative for each random direction v. No noise is looked
    at: plus half the mean square of the true score it is half the squared error of s.

    Args:
      network: (params, x, c_noise, cond, key) -> raw output.
      schedule: the noise schedule, whose p_t is matched.
      parameterization: what the network predicts, `predict_score` or any other.
      density: how times are drawn.
      weight: (schedule, t) -> w (B,).
      projections: directions v per sample.
      projection: (key, shape, dtype) -> v of mean 0 and covariance I, such as
        `jax.random.rademacher` or `jax.random.normal`.
      variance_reduced: |s|^2 itself; False has (v . s)^2, which needs no more than E v v' = I.

    Returns:
      A `LossFn` like that of `denoising_score_matching`.
    """

    def terms(score, x_t, t, eps, key):
        v = projection(key, (projections, *x_t.shape), x_t.dtype)
        s, derivative = jax.linearize(score, x_t)

        def slope(v):
            return per_sample_mean(v * derivative(v))

        def along(v):
            elements = v[0].size
            return elements * per_sample_mean(v * s) ** 2

        square = per_sample_mean(s**2) if variance_reduced else jnp.mean(jax.vmap(along)(v), 0)
        return jnp.mean(jax.vmap(slope)(v), 0) + square / 2

    return _score_loss(network, schedule, parameterization, density, weight, terms)


def _score_loss(network, schedule, parameterization, density, weight, terms) -> LossFn:
    """The mean of weighted terms(score, x_t, t, eps, key) (B,), where score is of x_t alone."""
    check_trainable(schedule, parameterization)

    def loss(params, key, batch, density_state=()):
        x0, cond = split_batch(batch)
        t_key, eps_key, network_key, terms_key = jax.random.split(key, 4)
        t, importance = density.draw(t_key, x0.shape[0], density_state)
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        denoiser = make_denoiser(network, params, schedule, parameterization, network_key)

        def score(x):
            return score_from_x0(schedule, x, t, denoiser(x, t, cond).x0)

        x_t = q_sample(schedule, x0, t, eps)
        losses = weight(schedule, t) * terms(score, x_t, t, eps, terms_key)
        state = density.update(density_state, t, jax.lax.stop_gradient(losses))
        return jnp.mean(importance * losses), {"context": {"density_state": state}}

    return loss
