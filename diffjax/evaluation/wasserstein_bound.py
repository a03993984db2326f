"""What errors of the score are worth in Wasserstein distance, and how large they are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffjax.diffusion import diffusion_squared, drift, q_sample, score_from_x0
from diffjax.errors import InputError
from diffjax.types import (
    Anyshape,
    Array,
    Denoiser,
    Grid,
    Prediction,
    PRNGKeyArray,
    Samples,
    Scalar,
    Schedule,
)


def wasserstein_bound(
    schedule: Schedule,
    ts: Grid,
    score_errors: Anyshape,
    lipschitz: Anyshape,
    prior_distance: Scalar = 0.0,
) -> Array:
    """Upper bound on W2(data, samples of the reverse SDE): Kwon et al. 2022.

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


class ScoreErrors(NamedTuple):
    """What `wasserstein_bound` wants besides the schedule and the times.

    Attributes:
      score_errors: (n + 1,) root mean square norm of the score's error.
      lipschitz: (n + 1,) largest eigenvalue of the symmetric part of the model's ds/dx.
      prior_distance: upper bound of W2(p_T, prior).
    """

    score_errors: Array
    lipschitz: Array
    prior_distance: Array


def estimate_score_errors(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    reference: Denoiser,
    schedule: Schedule,
    x0: Samples,
    ts: Grid,
) -> ScoreErrors:
    """The inputs of `wasserstein_bound` by Monte Carlo, one draw of x_t per sample and time.

    The error of a score needs the true score, which data alone do not give: the loss of
    denoising score matching exceeds its square by the unknown variance of x0 given x_t. Hence
    `reference`: the exact denoiser where it is known, or that of the data set itself,
    `empirical_denoiser`. With the latter the bound is on the distance to the set's own
    distribution, which a model that has memorised it attains. The prior's distance is that of the
    coupling x_T = alpha x0 + sigma eps, sigma eps, which is never too small. `lipschitz` is the
    largest over the draws and so may miss the true supremum: the result is an estimate of the
    bound, exact for Gaussian models, whose ds/dx is the same everywhere.

    Args:
      key: consumed whole.
      denoiser: the model's.
      reference: a denoiser whose score is taken as true.
      schedule: the noise schedule.
      x0: data (B, ...); every time costs as many Jacobian products per sample as it has
        dimensions, for some hundreds of them.
      ts: n + 1 decreasing times with alpha and sigma above 0.

    Returns:
      `ScoreErrors`, for `wasserstein_bound(schedule, ts, *errors)`.
    """
    ts = jnp.asarray(ts)

    def at(key_and_time):
        key, t = key_and_time
        x_t = q_sample(schedule, x0, t, jax.random.normal(key, x0.shape, x0.dtype))
        scores = [
            score_from_x0(schedule, x_t, t, d(x_t, t, None).x0) for d in (denoiser, reference)
        ]
        square = jnp.sum((scores[0] - scores[1]) ** 2) / x0.shape[0]
        return jnp.sqrt(square), jnp.max(_top_eigenvalues(schedule, denoiser, x_t, t))

    errors, lipschitz = lax.map(at, (jax.random.split(key, ts.shape[0]), ts))
    norm = jnp.sqrt(jnp.sum(x0**2) / x0.shape[0])
    return ScoreErrors(errors, lipschitz, schedule.alpha(ts[0]) * norm)


def _top_eigenvalues(schedule: Schedule, denoiser: Denoiser, x: Samples, t: Array) -> Array:
    """The largest eigenvalue of the symmetric part of ds/dx at each sample (B,)."""

    def score(flat):
        one = flat.reshape(1, *x.shape[1:])
        return score_from_x0(schedule, one, t, denoiser(one, t, None).x0).ravel()

    def top(flat):
        slope = jax.jacfwd(score)(flat)
        return jnp.linalg.eigvalsh((slope + slope.T) / 2)[-1]

    return jax.vmap(top)(x.reshape(x.shape[0], -1))


def empirical_denoiser(schedule: Schedule, data: Samples) -> Denoiser:
    """E[x0 | x_t] when x0 is one of the data, each as likely: Karras et al. 2022, appendix B.3.

    The mean of the data weighted by a softmax of -|x_t - alpha x0|^2 / (2 sigma^2).

    Args:
      schedule: the noise schedule.
      data: (N, ...).

    Returns:
      A denoiser that ignores its condition, with sigma(t) above 0.
    """
    flat = data.reshape(data.shape[0], -1)

    def denoiser(x, t, cond):
        alpha, sigma = (
            jnp.broadcast_to(f(jnp.asarray(t)), x.shape[:1])[:, None]
            for f in (schedule.alpha, schedule.sigma)
        )
        x_flat = x.reshape(x.shape[0], -1)
        logits = alpha * x_flat @ flat.T - alpha**2 / 2 * jnp.sum(flat**2, axis=1)[None]
        return Prediction((jax.nn.softmax(logits / sigma**2) @ flat).reshape(x.shape))

    return denoiser
