"""Consistency without a teacher: iCT on a grid that doubles, ECT with a step that shrinks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.distill.consistency import boundary_denoiser
from diffjax.distill.distance import pseudo_huber, squared
from diffjax.distill.flow_map import jump
from diffjax.distill.teacher import Velocity, noised_towards
from diffjax.losses import split_batch
from diffjax.parameterization import make_denoiser
from diffjax.types import (
    Array,
    Grid,
    LossFn,
    Network,
    Parameterization,
    PerSample,
    PRNGKeyArray,
    Schedule,
)


def consistency_levels(
    u: Array, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Array:
    """The noise level of a place u in [0, 1] on the rising grid: Song et al. 2023, section 5.

    (sigma_min^(1/rho) + u (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho.

    Args:
      u: places, any shape; n/(N - 1) is the n-th of N points.
      sigma_min: level at 0.
      sigma_max: level at 1.
      rho: how far the grid is crowded towards low noise.

    Returns:
      Noise levels sigma/alpha, u's shape.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (low + u * (high - low)) ** rho


def consistency_grid(
    n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Grid:
    """`consistency_levels` of n points, n >= 2, rising from sigma_min to sigma_max."""
    return consistency_levels(jnp.linspace(0, 1, n), sigma_min, sigma_max, rho)


def consistency_distribution(grid: Grid, mean: float = -1.1, std: float = 2.0) -> Array:
    """Probability of each interval of a grid under a lognormal: Song & Dhariwal 2024, section 3.5.

    p(n) is proportional to erf((log t_{n+1} - mean)/(sqrt(2) std)) - erf((log t_n - mean)/...).

    Args:
      grid: N rising noise levels.
      mean: of the logarithm.
      std: of the logarithm.

    Returns:
      (N - 1,) probabilities.
    """
    cdf = jax.scipy.special.erf((jnp.log(grid) - mean) / (jnp.sqrt(2.0) * std))
    mass = jnp.diff(cdf)
    return mass / jnp.sum(mass)


def doubling(step: Array, total: int, first: int = 10, last: int = 1280) -> Array:
    """N(k) = min(s0 2^floor(k/K'), s1) + 1 grid points: Song & Dhariwal 2024, section 3.4.

    K' = floor(K / (log2(s1/s0) + 1)).

    Args:
      step: k, training steps taken, () int.
      total: K, training steps in all.
      first: s0, intervals at the start.
      last: s1, intervals at the end.

    Returns:
      Number of grid points, () int32.
    """
    stage = max(int(total // (np.log2(last / first) + 1)), 1)
    doubled = first * 2.0 ** jnp.minimum(step // stage, 30)
    return (jnp.minimum(doubled, last) + 1).astype(jnp.int32)


def draw_neighbours(
    key: PRNGKeyArray,
    batch: int,
    points: Array,
    mean: float = -1.1,
    std: float = 2.0,
    levels: Callable[[Array], Array] = consistency_levels,
) -> tuple[PerSample, PerSample]:
    """Neighbouring noise levels of a grid whose number of points may be traced.

    A level is drawn from the lognormal between the ends of the grid; the interval that holds it
    has exactly the probability of `consistency_distribution`.

    Args:
      key: consumed whole.
      batch: number of pairs.
      points: N, at least 2.
      mean: of the logarithm of the level.
      std: of the logarithm of the level.
      levels: place in [0, 1] -> noise level, rising.

    Returns:
      The higher and the lower level of each interval, each (batch,).
    """
    low, high = ((jnp.log(levels(jnp.asarray(u))) - mean) / std for u in (0.0, 1.0))
    level = mean + std * jax.random.truncated_normal(key, low, high, (batch,))
    places = jnp.linspace(0, 1, 2049)  # an inverse by table, refined below
    guess = jnp.interp(level, jnp.log(levels(places)), places)
    n = jnp.clip(jnp.floor(guess * (points - 1)), 0, points - 2)
    below = jnp.log(levels(n / (points - 1))) > level
    above = jnp.log(levels((n + 1) / (points - 1))) < level
    n = jnp.clip(n - below + above, 0, points - 2)
    return levels((n + 1) / (points - 1)), levels(n / (points - 1))


def _time(schedule: Schedule, level: PerSample) -> PerSample:
    """The time of a noise level sigma/alpha."""
    return schedule.t_from_logsnr(-2 * jnp.log(level))


def consistency_training(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    total: int,
    distance: Callable[[Array], Array] | None = None,
    mean: float = -1.1,
    std: float = 2.0,
    points: Callable[[Array, int], Array] = doubling,
    levels: Callable[[Array], Array] = consistency_levels,
    velocity: Velocity | None = None,
) -> LossFn:
    """iCT: d(f(x_t, t), sg f(x_s, s)) / (t - s), x_s of the same noise as x_t.

    Song & Dhariwal 2024: no teacher, no average of parameters, pseudo-Huber distances, lognormal
    levels, a grid that doubles. The levels t and s are ratios sigma/alpha.

    Args:
      network: of one time.
      schedule: the noise schedule; the paper's is `edm`.
      parameterization: one for which x0_hat is x at the lowest level, such as
        `consistency_preconditioning`.
      total: training steps in all.
      distance: default `pseudo_huber()`.
      mean: of the logarithm of the level.
      std: of the logarithm of the level.
      points: (training step, total) -> grid points.
      levels: place in [0, 1] -> noise level, rising.
      velocity: from x_t to x_s; default that of the data, or `guided_data`.

    Returns:
      A `LossFn` whose context has `iteration`, the training steps taken; it begins at 0. `frozen`
      is passed on to the velocity.
    """
    distance = pseudo_huber() if distance is None else distance
    noised = noised_towards(schedule, velocity)

    def loss(params, key, batch, *, frozen=None, iteration=0, **context):
        x0, cond = split_batch(batch)
        level_key, eps_key, network_key = jax.random.split(key, 3)
        number = points(jnp.asarray(iteration), total)
        high, low = draw_neighbours(level_key, x0.shape[0], number, mean, std, levels)
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        t, s = _time(schedule, high), _time(schedule, low)
        x_t, aim = noised(frozen, x0, t, eps, cond)
        denoiser = make_denoiser(network, params, schedule, parameterization, network_key)
        ahead = denoiser(jump(schedule, x_t, t, s, aim), s, cond).x0
        difference = denoiser(x_t, t, cond).x0 - jax.lax.stop_gradient(ahead)
        value = jnp.mean(distance(difference) / (high - low))
        return value, {"points": number, "context": {"iteration": jnp.asarray(iteration) + 1}}

    return loss


def easy_consistency(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    total: int,
    stages: int = 8,
    base: float = 2.0,
    scale: float = 8.0,
    mean: float = -1.1,
    std: float = 2.0,
    distance: Callable[[Array], Array] = squared,
    velocity: Velocity | None = None,
) -> LossFn:
    """ECT: consistency tuning of a trained denoiser with a step that shrinks: Geng et al. 2024.

    Levels r < t with r/t = 1 - n(t)/q^(1 + stage), n(t) = 1 + k sigmoid(-t), at least 0; the weight
    is 1/(t - r). At the first stage r is mostly 0, where the loss is that of a denoiser.

    Args:
      network: of one time, best begun at a trained denoiser.
      schedule: the noise schedule; the paper's is `edm`.
      parameterization: `edm_preconditioning`, for which x0_hat is x at a clean time.
      total: training steps in all.
      stages: number of equal stages.
      base: q, the factor by which the step shrinks per stage.
      scale: k; 8 is the paper's.
      mean: of the logarithm of the level; the paper's is -1.1.
      std: of the logarithm of the level.
      distance: of the difference of the two predictions.
      velocity: from x_t to x_r; default that of the data, or `guided_data`.

    Returns:
      A `LossFn` whose context has `iteration`, the training steps taken; it begins at 0. `frozen`
      is passed on to the velocity.
    """
    noised = noised_towards(schedule, velocity)

    def loss(params, key, batch, *, frozen=None, iteration=0, **context):
        x0, cond = split_batch(batch)
        level_key, eps_key, network_key = jax.random.split(key, 3)
        stage = jnp.minimum(jnp.asarray(iteration) * stages // total, stages - 1)
        high = jnp.exp(mean + std * jax.random.normal(level_key, x0.shape[:1]))
        low = high * easy_ratio(high, stage, base, scale)
        eps = jax.random.normal(eps_key, x0.shape, x0.dtype)
        t, r = _time(schedule, high), _time(schedule, low)
        x_t, aim = noised(frozen, x0, t, eps, cond)
        predict = boundary_denoiser(network, params, schedule, parameterization, network_key)
        ahead = predict(jump(schedule, x_t, t, r, aim), r, cond)
        difference = predict(x_t, t, cond) - jax.lax.stop_gradient(ahead)
        value = jnp.mean(distance(difference) / (high - low))
        return value, {"context": {"iteration": jnp.asarray(iteration) + 1}}

    return loss


def easy_ratio(level: Array, stage: Array, base: float = 2.0, scale: float = 8.0) -> Array:
    """r/t of ECT: max(1 - (1 + k sigmoid(-t))/q^(stage + 1), 0), Geng et al. 2024, section 3.

    Args:
      level: t, noise levels of any shape.
      stage: counted from 0, broadcasts against level.
      base: q, above 1.
      scale: k.

    Returns:
      Ratios in [0, 1), level's shape.
    """
    return jnp.maximum(1 - (1 + scale * jax.nn.sigmoid(-level)) / base ** (stage + 1.0), 0)
