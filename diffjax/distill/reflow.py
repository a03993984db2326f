"""Reflow: flow matching between noise and what a flow makes of it, whose paths are straighter."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample, velocity_from_x0
from diffjax.distill.distance import squared
from diffjax.distill.teacher import Teacher
from diffjax.losses import split_batch
from diffjax.parameterization import make_denoiser
from diffjax.samplers import sample
from diffjax.schedules import logsnr
from diffjax.types import (
    Anyshape,
    Array,
    Cond,
    Denoiser,
    Grid,
    LossFn,
    Network,
    Parameterization,
    Path,
    PerSample,
    PRNGKeyArray,
    Sampler,
    Samples,
    Schedule,
    TimeDensity,
)


def coupling(
    key: PRNGKeyArray,
    schedule: Schedule,
    denoiser: Denoiser,
    sampler: Sampler,
    ts: Grid,
    noise: Samples,
    cond: Cond = None,
) -> dict[str, Array]:
    """Noise and the data that a deterministic sampler makes of it: Liu et al. 2023, Alg. 1.

    Args:
      key: of the sampler, which ignores it.
      schedule: the noise schedule.
      denoiser: the teacher.
      sampler: a deterministic one.
      ts: decreasing times, the last clean.
      noise: standard normal (B, ...); the sampler begins at sigma(ts[0]) times it.
      cond: condition of each sample, or None.

    Returns:
      {"x": data, "noise": noise, and the conditions}: a batch of `reflow`, or to be stored.
    """
    ts = jnp.asarray(ts)
    x = sample(key, denoiser, sampler, schedule.sigma(ts[0]) * noise, ts, cond)
    return {"x": x, "noise": noise, **(cond or {})}


def reflow(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    density: TimeDensity,
    weighting: Callable[[Anyshape], Anyshape],
) -> LossFn:
    """w |x0_hat(x_t, t) - x0|^2 with x_t between pairs of data and noise: Liu et al. 2023, Eq. 1.

    Args:
      network: of one time.
      schedule: the noise schedule; the paper's is `rectified_flow`.
      parameterization: what the network predicts; the paper's is `predict_velocity`.
      density: of the times, one without state.
      weighting: logsnr -> weight of the squared error of x0.

    Returns:
      A `LossFn` of batches with "noise" beside "x", from `coupling`.
    """

    def loss(params, key, batch, **context):
        pairs, cond = split_batch({k: v for k, v in batch.items() if k != "noise"})
        time_key, network_key = jax.random.split(key)
        t, importance = density.draw(time_key, pairs.shape[0], density.init())
        x_t = q_sample(schedule, pairs, t, batch["noise"])
        denoiser = make_denoiser(network, params, schedule, parameterization, network_key)
        error = squared(denoiser(x_t, t, cond).x0 - pairs)
        return jnp.mean(importance * weighting(logsnr(schedule, t)) * error), {}

    return loss


def on_pairs(
    loss: LossFn,
    schedule: Schedule,
    teacher: Teacher,
    sampler: Sampler,
    ts: Grid,
) -> LossFn:
    """A loss of pairs as one of data, whose conditions alone are used: pairs are made at each step.

    Args:
      loss: such as `reflow`.
      schedule: the noise schedule.
      teacher: frozen -> denoiser.
      sampler: a deterministic one.
      ts: decreasing times, the last clean.

    Returns:
      A `LossFn` that is given `frozen`; a step costs the sampler's denoiser calls too.
    """

    def made(params, key, batch, *, frozen, **context):
        x0, cond = split_batch(batch)
        noise_key, sampler_key, key = jax.random.split(key, 3)
        noise = jax.random.normal(noise_key, x0.shape, x0.dtype)
        pairs = coupling(sampler_key, schedule, teacher(frozen), sampler, ts, noise, cond)
        return loss(params, key, jax.lax.stop_gradient(pairs), **context)

    return made


def straightness(
    schedule: Schedule,
    denoiser: Denoiser,
    batch: dict[str, Array],
    path: Path,
    ts: Array,
    weights: Array,
) -> PerSample:
    """Integral over t of |z - x - v(z_t, t)|^2 along the flow: Liu et al. 2023, section 2.2.

    Args:
      schedule: `rectified_flow`.
      denoiser: of the flow.
      batch: {"x", "noise", conditions} of `coupling`.
      path: the trajectories at ts, (n, B, ...), such as part of a `sample_path`.
      ts: nodes of a quadrature rule on (0, 1), (n,).
      weights: its weights, (n,).

    Returns:
      (B,), of the sum of squares over elements; 0 for straight paths.
    """
    x0, cond = split_batch({k: v for k, v in batch.items() if k != "noise"})
    chord = batch["noise"] - x0

    def bend(node):
        z, t = node
        v = velocity_from_x0(schedule, z, t, denoiser(z, t, cond).x0)
        return jnp.sum((chord - v) ** 2, axis=tuple(range(1, x0.ndim)))

    return jnp.tensordot(weights, jax.lax.map(bend, (path, ts)), 1)
