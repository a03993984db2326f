"""Fine-tuning by a reward on the forward process: DiffusionNFT (Zheng et al. 2026)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import prior_sample, q_sample
from diffjax.distill.distance import squared
from diffjax.distill.reward import Reward, advantages
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.samplers import sample
from diffjax.schedules import logsnr
from diffjax.types import (
    Anyshape,
    Denoiser,
    Grid,
    LossFn,
    Params,
    PerSample,
    Sampler,
    Schedule,
    TimeDensity,
)


def optimality(rewards: PerSample, group: int = 8, width: float = 5.0) -> PerSample:
    """1/2 + clip(advantage / width, -1, 1) / 2: the share of a sample that counts as good.

    Args:
      rewards: (B,), samples of one group side by side.
      group: size of a group, at least 2, a divisor of B; see `advantages`.
      width: standard deviations at which all of it does.

    Returns:
      (B,) in [0, 1].
    """
    return 0.5 + jnp.clip(advantages(rewards, group) / width, -1, 1) / 2


def negative_aware(
    denoiser: Callable[[Params], Denoiser],
    sampler: Sampler,
    schedule: Schedule,
    ts: Grid,
    reward: Reward,
    density: TimeDensity,
    weighting: Callable[[Anyshape], Anyshape],
    beta: float = 1.0,
    decay: float = 0.9,
    group: int = 8,
    good: Callable[[PerSample], PerSample] | None = None,
) -> LossFn:
    """r |x0+ - x0|^2 + (1 - r) |x0- - x0|^2 of the old policy's samples x0: Zheng et al. 2026.

    x0+ = old + beta (new - old) and x0- = old - beta (new - old), of x0 noised to t, so that the
    best new prediction is old + (2/beta) Cov(r, x0 | x_t), their Theorem 3.2. Any sampler draws,
    and of what it draws only the end is kept.

    Args:
      denoiser: parameters -> denoiser, trained.
      sampler: of the old policy.
      schedule: the noise schedule.
      ts: n + 1 decreasing times for it.
      reward: any, differentiable or not.
      density: of the times t, one without state.
      weighting: logsnr -> weight of the squared errors of x0.
      beta: the smaller, the further one update goes.
      decay: of the average of past parameters that the old policy is.
      group: samples of each example of the batch.
      good: rewards -> r in [0, 1]; default `optimality` in these groups.

    Returns:
      A `LossFn` whose context needs `teacher_params`, a copy of the initial
      parameters that it moves; aux has `reward`.

    Raises:
      InputError: when called without `teacher_params`.
    """
    good = good or (lambda rewards: optimality(rewards, group))

    def loss(params, key, batch, *, teacher_params=None, **context):
        if teacher_params is None:
            raise InputError(
                "negative_aware needs `teacher_params`, a copy of the initial parameters, in the "
                "training context; got none. See `with_past`."
            )
        like, cond = split_batch(jax.tree.map(lambda a: jnp.repeat(a, group, axis=0), batch))
        noise_key, draw_key, time_key, eps_key = jax.random.split(key, 4)
        before = denoiser(jax.lax.stop_gradient(teacher_params))
        x = prior_sample(noise_key, schedule, like.shape, t=ts[0])
        x0 = jax.lax.stop_gradient(sample(draw_key, before, sampler, x, ts, cond=cond))
        rewards = reward(x0)
        r = jax.lax.stop_gradient(good(rewards))
        t, importance = density.draw(time_key, x0.shape[0], density.init())
        x_t = q_sample(schedule, x0, t, jax.random.normal(eps_key, x0.shape, x0.dtype))
        known = jax.lax.stop_gradient(before(x_t, t, cond).x0)
        change = beta * (denoiser(params)(x_t, t, cond).x0 - known)
        error = r * squared(known + change - x0) + (1 - r) * squared(known - change - x0)
        value = jnp.mean(importance * weighting(logsnr(schedule, t)) * error)
        moved = jax.tree.map(
            lambda a, b: jax.lax.stop_gradient(decay * a + (1 - decay) * b), teacher_params, params
        )
        return value, {"reward": jnp.mean(rewards), "context": {"teacher_params": moved}}

    return loss
