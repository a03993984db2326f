"""Losses of the score itself, and what an error of the score is worth in distance."""

import jax
import jax.numpy as jnp

from diffjax.diffusion import diffusion_squared, drift, q_sample, score_from_x0
from diffjax.losses.denoising import per_sample_mean, split_batch
from diffjax.parameterization import make_denoiser
from diffjax.types import (
    Anyshape,
    Array,
    Grid,
    InputError,
    LossFn,
    Network,
    Parameterization,
    Scalar,
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


def wasserstein_bound(
    schedule: Schedule,
    ts: Grid,
    score_errors: Anyshape,
    lipschitz: Anyshape,
    prior_distance: Scalar = 0.0,
) -> Array:
    """Upper bound on W2(data, samples of the reverse SDE): Kwon et al. 2022, Theorem 1.

    W2(p_0, q_0) <= int g(t)^2 I(t) E_{p_t}[|s - s_theta|^2]^(1/2) dt + I(T) W2(p_T, q_T) with
    I(t) = exp(int_0^t (-f + L g^2) dr), by the trapezoidal rule between the given times.
    The paper has a Lipschitz constant of the drift; the drift here is f x with f at most 0,
    and -f is exact.

    Args:
      schedule: the noise schedule.
      ts: n + 1 decreasing times with alpha and sigma above 0; the bound is on p at the last.
      score_errors: root mean square over p_t of the norm (not the mean over elements) of the
        score's error at each of ts.
      lipschitz: L at each of ts, with (s(x) - s(y)) . (x - y) <= L |x - y|^2 for the score s
        of the model; for N(m, v I) it is -1/v.
      prior_distance: W2 between p_t and the sampler's prior at the first of ts.

    Returns:
      The bound, a scalar, in the unit of the data; of the exact solution of the SDE, to
      which a sampler adds the error of its steps.

    Raises:
      InputError: the three arrays are not of one length.
    """
    ts, errors, lipschitz = map(jnp.asarray, (ts, score_errors, lipschitz))
    if not ts.shape == errors.shape == lipschitz.shape:
        raise InputError(
            "wasserstein_bound needs one score error and one Lipschitz constant per time; got "
            f"shapes {ts.shape}, {errors.shape} and {lipschitz.shape}."
        )
    ts, errors, lipschitz = ts[::-1], errors[::-1], lipschitz[::-1]
    g_squared = diffusion_squared(schedule, ts)
    rate = lipschitz * g_squared - drift(schedule, ts)
    steps = jnp.diff(ts) * (rate[1:] + rate[:-1]) / 2
    growth = jnp.exp(jnp.append(jnp.zeros(1, steps.dtype), jnp.cumsum(steps)))
    return jnp.trapezoid(g_squared * growth * errors, ts) + growth[-1] * prior_distance
