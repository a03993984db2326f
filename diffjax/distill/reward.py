"""Fine-tuning by a reward(x0) -> (B,): through the sampler, or by policy gradients.

Both sample ancestrally, x_s ~ q(x_s | x_t, x0_hat), and may pay for leaving a reference model by
the KL divergence of the two chains, which is a sum over steps. Where x_T says nothing of x_0, as
with alpha(t_max) = 0, the best law is p_ref(x0) exp(reward(x0) / beta) (Uehara et al. 2024).
The last step, which has no noise, is the reference's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_posterior
from diffjax.distill.teacher import Teacher
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.types import (
    Array,
    BoundDenoiser,
    Denoiser,
    Grid,
    LossFn,
    Params,
    PerSample,
    PRNGKeyArray,
    Samples,
    Schedule,
)

Reward = Callable[[Samples], PerSample]
"""x0 -> one number per sample, the higher the better; of decoded samples where they are latent."""


class Rollout(NamedTuple):
    """What a chain of n steps went through.

    Attributes:
      x0: the samples (B, ...).
      starts: where each step but the last began (n - 1, B, ...).
      ends: where it ended, starts' shape.
      divergence: KL of these steps to the reference's, summed (B,).
    """

    x0: Samples
    starts: Array
    ends: Array
    divergence: PerSample


def _flat_sum(x: Samples) -> PerSample:
    return jnp.sum(x.reshape(x.shape[0], -1), axis=1)


def step_divergence(
    schedule: Schedule, x: Samples, t: Array, s: Array, x0: Samples, reference: Samples
) -> PerSample:
    """KL of q(x_s | x_t, x0) to q(x_s | x_t, reference): |mean - mean'|^2 / (2 variance).

    Args:
      schedule: the noise schedule.
      x: the sample at t.
      t: later time, ().
      s: earlier time, (), not clean.
      x0: a prediction.
      reference: another.

    Returns:
      (B,).
    """
    mean, variance, _ = q_posterior(schedule, x0, x, t, s)
    other, _, _ = q_posterior(schedule, reference, x, t, s)
    return _flat_sum((mean - other) ** 2) / (2 * variance)


def step_logdensity(
    schedule: Schedule, x: Samples, t: Array, s: Array, x0: Samples, x_s: Samples
) -> PerSample:
    """log q(x_s | x_t, x0) up to a constant. Arguments as for `step_divergence`."""
    mean, variance, _ = q_posterior(schedule, x0, x, t, s)
    return -_flat_sum((x_s - mean) ** 2) / (2 * variance)


def rollout(
    key: PRNGKeyArray,
    schedule: Schedule,
    denoise: BoundDenoiser,
    reference: BoundDenoiser,
    x: Samples,
    ts: Grid,
) -> Rollout:
    """Ancestral sampling by one denoiser, with its divergence from another.

    Args:
      key: consumed whole.
      schedule: the noise schedule.
      denoise: (x_t, t) -> Prediction; computed again in the backward pass, so that a chain needs
        the memory of one call and of its samples.
      reference: (x_t, t) -> Prediction, which makes the last step.
      x: noise at ts[0].
      ts: n + 1 decreasing times, the last clean, n >= 2.

    Returns:
      The chain.
    """
    again = jax.checkpoint(lambda x, t: denoise(x, t).x0)

    def step(x, each):
        t, s, key = each
        x0, known = again(x, t), reference(x, t).x0
        mean, variance, _ = q_posterior(schedule, x0, x, t, s)
        noise = jax.random.normal(key, x.shape, x.dtype)
        x_s = mean + jnp.sqrt(variance) * noise
        return x_s, (x, x_s, step_divergence(schedule, x, t, s, x0, known))

    keys = jax.random.split(key, ts.shape[0] - 2)
    end, (starts, ends, divergence) = jax.lax.scan(step, x, (ts[:-2], ts[1:-1], keys))
    return Rollout(reference(end, ts[-2]).x0, starts, ends, jnp.sum(divergence, axis=0))


class _Parts(NamedTuple):
    """What both losses begin with: the two denoisers, noise, and a key of the chain."""

    denoise: BoundDenoiser
    reference: BoundDenoiser
    x: Samples
    key: PRNGKeyArray


def _begin(denoiser, reference, schedule, ts, params, key, batch, frozen) -> _Parts:
    like, cond = split_batch(batch)
    noise_key, key = jax.random.split(key)
    x = schedule.sigma(ts[0]) * jax.random.normal(noise_key, like.shape, like.dtype)
    trained, known = denoiser(params), reference(frozen)
    return _Parts(lambda x, t: trained(x, t, cond), lambda x, t: known(x, t, cond), x, key)


def _check_grid(ts: Grid, least: int) -> None:
    if ts.shape[0] - 1 < least:
        raise InputError(
            f"a reward needs a grid of at least {least} steps here; got {ts.shape[0] - 1}."
        )


def draft(
    denoiser: Callable[[Params], Denoiser],
    reference: Teacher,
    schedule: Schedule,
    ts: Grid,
    reward: Reward,
    beta: float = 0.0,
    last: int | None = None,
) -> LossFn:
    """-reward(x0) + beta KL, differentiated through the sampler: DRaFT-K, AlignProp.

    Clark et al. 2024 (DRaFT), Algorithm 1; Prabhudesai et al. 2023 (AlignProp).

    Args:
      denoiser: parameters -> denoiser, trained.
      reference: frozen -> denoiser, which training begins at.
      schedule: the noise schedule.
      ts: n + 1 decreasing times, the last clean.
      reward: differentiable.
      beta: price of the divergence from the reference.
      last: K, steps through which the gradient goes; None is all of them. The last step of all
        is the reference's and counts.

    Returns:
      A `LossFn` that is given `frozen`; of the batch only the shape and the conditions are used;
      aux has `reward` and `divergence`.

    Raises:
      InputError: a grid of fewer than `last` steps, or of fewer than 2.
    """
    _check_grid(ts, max(2, last or 2))
    n = ts.shape[0] - 1
    first = 0 if last is None else n - max(last, 2)  # steps without gradient

    def loss(params, key, batch, *, frozen, **context):
        given = denoiser, reference, schedule, ts, params
        p = _begin(*given, key, batch, frozen)
        early_key, late_key = jax.random.split(p.key)
        x, paid = p.x, 0.0
        if first:
            head = jnp.append(ts[: first + 1], ts[first])  # its last step is not used
            before = rollout(early_key, schedule, p.denoise, p.reference, x, head)
            x, paid = jax.lax.stop_gradient((before.ends[-1], before.divergence))
        chain = rollout(late_key, schedule, p.denoise, p.reference, x, ts[first:])
        value, divergence = reward(chain.x0), chain.divergence + paid
        aux = {"reward": jnp.mean(value), "divergence": jnp.mean(divergence)}
        return jnp.mean(beta * divergence - value), aux

    return loss


def advantages(rewards: PerSample, group: int, scaled: bool = True) -> PerSample:
    """Rewards less the mean of their group, over its standard deviation: Flow-GRPO, Eq. 4.

    Args:
      rewards: (B,), samples of one group side by side.
      group: size of a group, at least 2, a divisor of B.
      scaled: whether to divide; without it the gradient is that of the mean reward, times
        (group - 1)/group.

    Returns:
      (B,).

    Raises:
      InputError: the group does not divide the batch.
    """
    if group < 2 or rewards.shape[0] % group:
        raise InputError(
            f"a group must have at least 2 samples and divide the batch of {rewards.shape[0]}; "
            f"got {group}."
        )
    each = rewards.reshape(-1, group)
    apart = each - jnp.mean(each, axis=1, keepdims=True)
    spread = jnp.std(each, axis=1, keepdims=True) + 1e-6
    return (apart / spread if scaled else apart).reshape(-1)


def policy_gradient(
    denoiser: Callable[[Params], Denoiser],
    reference: Teacher,
    schedule: Schedule,
    ts: Grid,
    reward: Reward,
    beta: float = 0.0,
    group: int = 8,
    scaled: bool = True,
) -> LossFn:
    """-A log q(x_s | x_t) of every step + beta KL: DDPO (Black et al. 2024), Flow-GRPO (Liu 2025).

    A are `advantages` of reward - beta KL, so that unscaled ones give the exact gradient. The batch
    is repeated `group` times: the samples of a group have one condition. One update per chain,
    where the clipped ratio of both papers is 1.

    Args:
      denoiser: parameters -> denoiser, trained.
      reference: frozen -> denoiser, which training begins at.
      schedule: the noise schedule.
      ts: n + 1 decreasing times, the last clean, n >= 2.
      reward: any, differentiable or not.
      beta: price of the divergence from the reference.
      group: samples of each example of the batch, at least 2.
      scaled: as of `advantages`.

    Returns:
      A `LossFn` that is given `frozen`, whose gradient, not its value, means something; aux has
      `reward` and `divergence`.

    Raises:
      InputError: a grid of fewer than 2 steps.
    """
    _check_grid(ts, 2)

    def loss(params, key, batch, *, frozen, **context):
        batch = jax.tree.map(lambda a: jnp.repeat(a, group, axis=0), batch)
        p = _begin(denoiser, reference, schedule, ts, params, key, batch, frozen)
        chain = rollout(p.key, schedule, p.denoise, p.reference, p.x, ts)
        chain = jax.lax.stop_gradient(chain)
        gained = reward(chain.x0)
        net = gained - beta * chain.divergence  # what comes after a step is all that tells on it
        advantage = jax.lax.stop_gradient(advantages(net, group, scaled))

        @jax.checkpoint
        def step(total, each):
            x, x_s, t, s = each
            x0, known = p.denoise(x, t).x0, p.reference(x, t).x0
            logdensity = step_logdensity(schedule, x, t, s, x0, x_s)
            paid = step_divergence(schedule, x, t, s, x0, known)
            return total + beta * paid - advantage * logdensity, None

        steps = chain.starts, chain.ends, ts[:-2], ts[1:-1]
        total, _ = jax.lax.scan(step, jnp.zeros_like(gained), steps)
        aux = {"reward": jnp.mean(gained), "divergence": jnp.mean(chain.divergence)}
        return jnp.mean(total), aux

    return loss
